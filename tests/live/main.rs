//! Real parts: a Docker engine, strict moto behind a fault proxy, a registry. `tests/run.sh`
//! starts what is needed and says where it is; what is missing fails, nothing is skipped.

mod alb;
mod docker_run;
mod registry;
