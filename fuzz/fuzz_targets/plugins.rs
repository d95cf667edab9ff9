#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rosey_monitor::exporter::fuzzing::plugins(data));
