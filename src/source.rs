//! Where exits come from, one file a source.
