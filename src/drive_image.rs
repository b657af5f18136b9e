//! `FILE[,OPTIONS]`: which image a drive has, and how it is opened.

use machine::block::{ImageFormat, ImageOptions};
use std::path::PathBuf;
use std::str::FromStr;

/// An argument of `--disk`, `--cdrom` and `--floppy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DriveImage(pub(crate) ImageOptions);

impl DriveImage {
    /// The image at `path`, without options.
    pub(crate) fn new(path: impl Into<PathBuf>) -> DriveImage {
        DriveImage(ImageOptions::new(path))
    }
}

impl FromStr for DriveImage {
    type Err = String;

    fn from_str(text: &str) -> Result<DriveImage, String> {
        // A doubled comma belongs to the name.
        let mut parts = vec![String::new()];
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            match (character, parts.last_mut()) {
                (',', Some(part)) if rest.next_if_eq(&',').is_some() => part.push(','),
                (',', _) => parts.push(String::new()),
                (_, Some(part)) => part.push(character),
                (_, None) => {}
            }
        }
        let mut parts = parts.into_iter();
        let path = parts.next().filter(|path| !path.is_empty()).ok_or("give the image's name")?;
        let mut image = ImageOptions::new(path);
        for part in parts {
            match part.split_once('=') {
                Some(("format", format)) => image.format = Some(ImageFormat::from_str(format)?),
                Some(("snapshot", value)) => image.snapshot = switch("snapshot", value)?,
                Some(("readonly", value)) => image.read_only = switch("readonly", value)?,
                Some(_) | None => {
                    return Err(format!(
                        "{part:?} is no option of an image: there are format=raw|qcow2|vmdk, snapshot=on|off and readonly=on|off"
                    ));
                }
            }
        }
        if image.snapshot && image.read_only {
            return Err("snapshot=on and readonly=on exclude each other".into());
        }
        Ok(DriveImage(image))
    }
}

fn switch(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{name}={value}: give on or off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_the_name() {
        let parse = |text: &str| text.parse::<DriveImage>().map(|image| image.0);
        assert_eq!(parse("a.img"), Ok(ImageOptions::new("a.img")));
        let all = ImageOptions {
            path: "a,b.qcow2".into(),
            format: Some(ImageFormat::Qcow2),
            read_only: false,
            snapshot: true,
        };
        assert_eq!(parse("a,,b.qcow2,format=qcow2,snapshot=on,readonly=off"), Ok(all));
        for wrong in [
            "",
            ",format=raw",
            "a,format=vdi",
            "a,snapshot=yes",
            "a,cache=none",
            "a,",
            "a,readonly",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("a,readonly=on,snapshot=on").is_err());
    }
}
