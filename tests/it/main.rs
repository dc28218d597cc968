//! Everything that needs no engine, no AWS and no network: one binary, a module per surface.
//!
//! A file of this folder that is not named here fails `tidy::no_test_file_is_forgotten`.


mod docker_run;
