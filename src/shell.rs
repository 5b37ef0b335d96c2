//! Commands that are printed for people to paste into a shell. Whatever a topic, a group or a user is
//! called, what is pasted is this one command, and what is seen is what is run.

use std::fmt::{self, Write as _};

/// A command line with options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    text: String,
}

impl Command {
    /// A tool that comes with Kafka, for a cluster.
    pub fn kafka(tool: &str, servers: &[String]) -> Self {
        let text = tool.to_owned();
        Self { text }.option("--bootstrap-server", &servers.join(","))
    }

    /// An option without a value.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.text.push(' ');
        self.text.push_str(flag);
        self
    }

    /// An option with its value.
    #[must_use]
    pub fn option(mut self, option: &str, value: &str) -> Self {
        // One that looks like an option is told from one.
        let between = if value.starts_with('-') { '=' } else { ' ' };
        // Writing to a string can't fail.
        let _ = write!(self.text, " {option}{between}{}", word(value));
        self
    }

    /// What a reader should know, as a comment at the end.
    #[must_use]
    pub fn note(mut self, note: &str) -> Self {
        self.text.push_str(" # ");
        self.text.extend(note.chars().filter(|c| !is_unseen(*c)));
        self
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A word of a command line, quoted where that is needed.
///
/// What isn't plain ASCII is written byte by byte (`$'\NNN'`: bash, zsh, ksh, and POSIX since 2024): a
/// terminal may show letters in another order than they are in, not at all, or obey them.
pub fn word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:,@%+-".contains(&byte);
    // `key=value` as it is written by everybody; a word that begins with `=` is a command's path to zsh.
    let is_value = |byte: u8| is_plain(byte) || byte == b'=';
    if text.bytes().next().is_some_and(is_plain) && text.bytes().all(is_value) {
        return text.to_owned();
    }
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut quoted = "$'".to_owned();
    for byte in text.bytes() {
        match byte {
            b'\'' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => {
                // Three octal digits end by themselves; hexadecimal ones may go on.
                let _ = write!(quoted, "\\{byte:03o}");
            }
        }
    }
    quoted.push('\'');
    quoted
}

/// Whether a character is obeyed or hidden by a terminal, or changes the order of its neighbours.
pub fn is_unseen(c: char) -> bool {
    let is_hidden = matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    );
    is_hidden || c.is_control()
}

/// What somebody else said, as it may be shown in a line: at most so many letters of it, and a blank for each
/// that is obeyed or hidden.
pub fn one_line(said: &str, letters_max: usize) -> String {
    let letters = said.trim().chars().take(letters_max);
    letters
        .map(|letter| if is_unseen(letter) { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process;

    use proptest::prelude::*;

    use super::*;

    fn words_of_a_shell(line: &str) -> Vec<u8> {
        let script = format!(r"printf '%s\0' {line}");
        let output = process::Command::new("bash").arg("-c").arg(script).output();
        output.expect("a shell").stdout
    }

    fn ended(name: &str) -> Vec<u8> {
        name.bytes().chain([0]).collect()
    }

    #[test]
    fn plain_words_stay_as_they_are() {
        assert_eq!(word("shop.orders-1_a"), "shop.orders-1_a");
        assert_eq!(word("User:twinlog"), "User:twinlog");
        assert_eq!(word("*"), "'*'");
        assert_eq!(word(""), "''");
        assert_eq!(word("x'; touch y"), r"'x'\''; touch y'");
        assert_eq!(word("a\u{202e}b\n"), r"$'a\342\200\256b\012'");
    }

    #[test]
    fn what_others_say_is_one_line_in_the_order_in_which_it_is_read() {
        assert_eq!(
            one_line(" no\x1b[2J\nway\u{202e}b\u{200b}c\r\n", 99),
            "no [2J way b c"
        );
        assert_eq!(one_line("abc", 2), "ab");
    }

    #[test]
    fn one_that_looks_like_an_option_is_none() {
        let servers = ["a:9092".to_owned(), "b:9092".to_owned()];
        let command = Command::kafka("kafka-acls.sh", &servers)
            .flag("--add")
            .option("--group", "--help")
            .note("and\u{202e} more");
        let expected =
            "kafka-acls.sh --bootstrap-server a:9092,b:9092 --add --group=--help # and more";
        assert_eq!(command.to_string(), expected);
    }

    #[test]
    fn a_shell_gives_back_every_name() {
        for name in [
            "x'; touch y; '",
            "$(id)",
            "`id`",
            "\\",
            "a\\'b",
            "~",
            "!!",
            "a\u{202e}\u{1b}[2Jb1",
            "ü7",
        ] {
            assert_eq!(words_of_a_shell(&word(name)), ended(name), "{name:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn what_is_printed_is_one_line_of_what_can_be_seen(name in any::<String>()) {
            let word = word(&name);
            prop_assert!(word.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{word}");
            if !name.contains('\0') {
                prop_assert_eq!(words_of_a_shell(&word), ended(&name));
            }
        }
    }
}
