//! One's own credential: the core device's certificate, from the request for a new one until the
//! nucleus uses it and the cloud knows (DESIGN §7).

mod job;
mod restarts;
mod run;
mod saved;
mod window;

pub use job::{Configured, Done, Failure, Found, Job, Pair, ProbeName, Probed};
pub use restarts::{Instant, Restarts};
pub use run::RunId;
pub use saved::{
    AwaitCertificate, AwaitWindow, Candidate, Complaint, Confirming, Ended, Installed, Kept,
    Probing, Proof, RollingBack, Saved, Stage,
};
pub use window::{LocalTime, RestartWindow, Weekday, WindowError};
