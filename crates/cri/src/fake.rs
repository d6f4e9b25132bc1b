//! Fakes of the seam for tests: in-memory runtimes, images and network.
