//! The JSON of each message, which `build.rs` generates from the annotations of `proto/`. It writes `proto::` before each
//! message, so that a message may have the name of a reader.

use serde::de::MapAccess;

use super::{Flag, Id, Joined, Number, Object, ReadJson, Reader as _, Text, acknowledgement, split};
use crate::proto;

include!(concat!(env!("OUT_DIR"), "/json.rs"));
