//! Text → validated settings.
