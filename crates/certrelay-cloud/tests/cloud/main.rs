//! The cloud side's promises, over the cloud in memory and in virtual time: every cut, every pair of
//! functions at once, every attack; and what linters don't see in the template.

mod attacks;
mod audits;
mod cuts;
mod errors;
mod fleet;
mod people;
mod plant;
mod stories;
mod template;
mod turns;
