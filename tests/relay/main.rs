//! The relay on a bench: the transition table and the rules of DESIGN §5, by its public API alone.

mod any;
mod bench;
mod pki;
mod rules;
mod table;
mod talk;
