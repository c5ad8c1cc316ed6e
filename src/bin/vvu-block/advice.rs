//! Adds advice to errors, such as the option that helps against the error.

use std::error::Error;
use std::fmt;
use std::path::Path;

use block::{ImageError, Qcow2Error};
use carriers::CarrierError;
use program::one_line;
use vvu::driver::DriverError;

/// An error of the disk image, and advice for the user. The advice follows the text of the error.
#[derive(Debug)]
pub struct Advised {
    error: ImageError,
    advice: Option<String>,
}

impl From<ImageError> for Advised {
    fn from(error: ImageError) -> Self {
        let advice = for_image(&error);
        Self { error, advice }
    }
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.error))?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

// `source` returns `None`, because the text of the error already contains all causes. The advice
// comes after the causes.
impl Error for Advised {}

fn for_image(error: &ImageError) -> Option<String> {
    let advice = match error {
        ImageError::Missing(_) => "create it first, for instance with `truncate -s 1G`",
        ImageError::NotWritable { .. } => "use --read-only, or change its permissions",
        ImageError::Directory(_) => "name a file or block device",
        ImageError::Empty(_) => "give it a size first, for instance with `truncate -s 1G`",
        ImageError::PartialSector { block, .. } => {
            return Some(format!("extend it with `truncate -s %{block}`"));
        }
        ImageError::SmallBlocks { logical, .. } => {
            return Some(format!("leave out --block-size, or make it {logical}"));
        }
        ImageError::Written(_) => {
            "stop that program, or use --lock=off if both programs know of each other"
        }
        ImageError::InUse(_) => "stop that program, or use --read-only or --lock=off",
        ImageError::NoDirectIo { .. } => "use another --cache",
        ImageError::Zoned(_) => "use --read-only, or a device without zones",
        ImageError::Qcow2 { source, .. } => return for_qcow2(source),
        _ => return None,
    };
    Some(advice.to_owned())
}

fn for_qcow2(error: &Qcow2Error) -> Option<String> {
    let advice = match error {
        Qcow2Error::NotQcow2 => {
            "`qemu-img info` shows its format; --format=raw serves its bytes as they are"
        }
        Qcow2Error::Encrypted | Qcow2Error::Features(_) => {
            "make a plain copy with `qemu-img convert -O qcow2`"
        }
        Qcow2Error::Dirty => "repair it with `qemu-img check -r all`",
        Qcow2Error::Size(_) => "change the size with `qemu-img resize`",
        Qcow2Error::NoBackingFormat { file } => {
            let file = shell_word(file);
            return Some(format!(
                "record it with `qemu-img rebase -u -b {file} -F qcow2` (or `-F raw`)"
            ));
        }
        Qcow2Error::BackingElsewhere { file } => {
            let folder = file.parent().unwrap_or(Path::new("/"));
            let folder = shell_word(&folder.to_string_lossy());
            return Some(format!(
                "if you trust the image, use --backing-dir={folder}"
            ));
        }
        Qcow2Error::TooDeep(_) => "merge images with `qemu-img commit` or `qemu-img convert`",
        _ => return None,
    };
    Some(advice.to_owned())
}

/// Quotes a text for a shell if necessary. The text may come from an image that a stranger made,
/// and users copy advice into shells.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/_.,:+@=-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Adds the option that helps against an error of a carrier, if there is such an option. A carrier
/// connects the device to its driver.
pub fn for_carrier(error: Box<dyn Error>) -> Box<dyn Error> {
    use DriverError::{TooFewQueues, TooFewVectors};
    match error.downcast_ref() {
        Some(CarrierError::Vvu(TooFewQueues { .. } | TooFewVectors { .. })) => {
            format!("{error}; ask for fewer queues with --num-queues").into()
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::PathBuf;

    fn text(error: ImageError) -> String {
        Advised::from(error).to_string()
    }

    #[test]
    fn advice_comes_after_the_causes() {
        let path = PathBuf::from("disk.img");
        let error = ImageError::NotWritable {
            path: path.clone(),
            source: io::Error::other("busy"),
        };
        let expected = "disk image disk.img is not writable: busy; \
                        use --read-only, or change its permissions";
        assert_eq!(text(error), expected);
        let file = "base".to_owned();
        let error = ImageError::Qcow2 {
            path,
            source: Qcow2Error::NoBackingFormat { file },
        };
        let expected = "cannot serve disk image disk.img as qcow2: \
                        it does not name the format of its backing file base; \
                        record it with `qemu-img rebase -u -b base -F qcow2` (or `-F raw`)";
        assert_eq!(text(error), expected);
    }

    #[test]
    fn names_in_advice_are_safe_to_copy_into_a_shell() {
        for (name, word) in [
            ("/pool/base_1.qcow2", "/pool/base_1.qcow2"),
            ("größe", "größe"),
            ("", "''"),
            ("my disks", "'my disks'"),
            ("a; rm -rf ~", "'a; rm -rf ~'"),
            ("it's `x`", r"'it'\''s `x`'"),
        ] {
            assert_eq!(shell_word(name), word);
        }
        let error = ImageError::Qcow2 {
            path: "disk.img".into(),
            source: Qcow2Error::BackingElsewhere {
                file: "/my pool/base".into(),
            },
        };
        let expected = "cannot serve disk image disk.img as qcow2: \
                        its backing file /my pool/base is in a folder that it may not use; \
                        if you trust the image, use --backing-dir='/my pool'";
        assert_eq!(text(error), expected);
    }

    #[test]
    fn an_error_without_advice_is_printed_alone() {
        let error = ImageError::NotADisk("pipe".into());
        assert_eq!(
            text(error),
            "disk image pipe is neither a regular file nor a block device"
        );
    }

    #[test]
    fn a_device_with_too_few_queues_is_told_with_the_option_that_helps() {
        let too_few = DriverError::TooFewQueues {
            needed: 4,
            available: 1,
        };
        let text = for_carrier(CarrierError::from(too_few).into()).to_string();
        assert!(text.ends_with("4 are needed; ask for fewer queues with --num-queues"));
        let other = CarrierError::from(DriverError::NotStarted);
        let text = for_carrier(other.into()).to_string();
        assert_eq!(text, "the device is not started");
    }
}
