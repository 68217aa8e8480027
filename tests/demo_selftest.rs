//! The demo goes as it says, and its table fits a terminal.

use std::process::{Command, Stdio};

#[test]
fn every_row_of_the_demo_goes_as_expected_and_fits_the_terminal() {
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--example", "demo"])
        .env_remove("KEEP")
        .stdin(Stdio::null())
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);

    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains(" as expected, in "), "{text}");
    let both_modes = text.contains("again, with dispatch: callout: ");
    let callout_alone = text.contains("dispatch: router needs Envoy 1.39");
    assert!(both_modes != callout_alone, "{text}");
    assert!(!text.contains('\x1b'), "colours without a terminal: {text}");
    let long = text.lines().find(|line| line.chars().count() > 120);
    assert_eq!(long, None, "a line of more than 120 columns");
}
