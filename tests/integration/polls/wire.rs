//! Polls on a bad line: what is cut never looks complete, what is slow still flows, and a GET may be asked once more.
