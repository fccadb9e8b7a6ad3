//! What the collector's benchmark needs: a vmcore and a makedumpfile, made and fetched when they are not there. Prints both
//! as JSON: `{"vmcore": PATH, "makedumpfile": [WORD, …]}`.

use anyhow::{Result, bail};
use qemu_tests::provision::{self, Suite};
use qemu_tests::source;

fn main() -> Result<()> {
    let vmcore = match std::env::args().nth(1).as_deref() {
        None => Some(source::large(Suite::Own)?.raw),
        Some("--only-makedumpfile") => None,
        Some(other) => bail!("{other} is not known; --only-makedumpfile leaves the vmcore out"),
    };
    let makedumpfile = provision::makedumpfile()?.argv();
    println!("{}", serde_json::json!({ "vmcore": vmcore, "makedumpfile": makedumpfile }));
    Ok(())
}
