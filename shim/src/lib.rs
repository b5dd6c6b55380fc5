//! libcounterfoil.so.
