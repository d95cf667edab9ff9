#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rosey_monitor::exporter::fuzzing::web_config(data));
