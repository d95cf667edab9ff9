//! The exporter: reads its sources when it is scraped and prints what they said.
