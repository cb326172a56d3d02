//! From a text to the tree of nodes.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::{BYTES_MAX, COPIED_BYTES_MAX, DEPTH_MAX, Entry, KEY_BYTES_MAX, Map, NODES_MAX, Node, Value, scalar};
use crate::model::{Finding, Findings, Location};

/// More duplicate keys are not reported: a file that is pasted behind itself has as many as it has lines.
const DUPLICATES_MAX: usize = 100;

/// Reads `bytes`, which must be UTF-8, as [`parse`] does.
pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Node, Findings> {
    parse(file, &text(file, bytes.to_vec())?)
}

/// The text that `bytes` are, which must be UTF-8.
pub fn text(file: &str, bytes: Vec<u8>) -> Result<String, Findings> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let (bytes, error) = (error.as_bytes(), error.utf8_error());
            let sound = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = sound.split(|&byte| byte == b'\n').count();
            Err(Findings(vec![Finding {
                location: Some(Location { file: file.to_owned(), line, column: 0 }),
                path: String::new(),
                message: format!("not UTF-8: the byte at offset {} begins no character", error.valid_up_to()),
                mend: "save the file as UTF-8".to_owned(),
            }]))
        }
    }
}

/// Reads the first document of `text`; an empty one is null. `file` is what locations call it.
pub fn parse(file: &str, text: &str) -> Result<Node, Findings> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > BYTES_MAX {
        return Err(Findings(vec![Finding {
            location: Some(Location { line: 1, ..Location::file(file) }),
            path: String::new(),
            message: format!("{} bytes are more than the {BYTES_MAX} that are read", text.len()),
            mend: "part it into several files".to_owned(),
        }]));
    }
    let mut builder = Builder {
        file,
        text,
        parser: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        nodes: 0,
        text_bytes: 0,
        copied_bytes: 0,
        findings: Vec::new(),
    };
    match builder.document() {
        Ok(node) if builder.findings.is_empty() => Ok(node),
        Ok(_) => Err(Findings(builder.findings)),
        Err(fatal) => {
            builder.findings.push(fatal);
            Err(Findings(builder.findings))
        }
    }
}

struct Builder<'t> {
    file: &'t str,
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    /// Finished nodes by anchor; an anchor that is absent is still open.
    anchors: BTreeMap<usize, Anchored>,
    /// So far, aliases expanded.
    nodes: usize,
    /// Of all scalars so far, aliases expanded.
    text_bytes: usize,
    /// What anchors and aliases have copied so far.
    copied_bytes: usize,
    /// Mistakes after which reading goes on, such as duplicate keys.
    findings: Vec<Finding>,
}

struct Anchored {
    node: Node,
    nodes: usize,
    text_bytes: usize,
    depth: usize,
}

/// A finished node with the size of its tree.
struct Built {
    node: Node,
    depth: usize,
    /// A plain `<<`, which merges if it is a key.
    merges: bool,
}

impl<'t> Builder<'t> {
    fn document(&mut self) -> Result<Node, Finding> {
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(self.node(at, Value::Null)),
                event => return self.value(event, at, 1).map(|built| built.node),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Marker), Finding> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start)),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Marker::new(0, 1, 0))),
        }
    }

    fn value(&mut self, event: Event<'t>, at: Marker, depth: usize) -> Result<Built, Finding> {
        self.nodes += 1;
        let (nodes_before, bytes_before) = (self.nodes, self.text_bytes);
        if depth > DEPTH_MAX {
            return Err(self.finding(at, format!("nested more than {DEPTH_MAX} levels deep"), "nest less"));
        }
        self.check_budget(at)?;
        let (anchor, built) = match event {
            Event::Alias(id) => return self.alias(id, at, depth),
            Event::Scalar(text, style, anchor, tag) => {
                self.text_bytes += text.len();
                let merges = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                let node = self.scalar(&text, style, tag.as_deref(), at)?;
                (anchor, Built { node, depth: 1, merges })
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", at)?;
                (anchor, self.sequence(at, depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", at)?;
                (anchor, self.mapping(at, depth)?)
            }
            _ => return Err(self.finding(at, "a value is missing".to_owned(), "")),
        };
        if anchor > 0 {
            let (nodes, text_bytes) = (1 + self.nodes - nodes_before, self.text_bytes - bytes_before);
            self.copy(nodes, text_bytes, at)?;
            self.anchors.insert(anchor, Anchored { node: built.node.clone(), nodes, text_bytes, depth: built.depth });
        }
        Ok(built)
    }

    fn alias(&mut self, id: usize, at: Marker, depth: usize) -> Result<Built, Finding> {
        let Some(anchored) = self.anchors.get(&id) else {
            let mend = "write out what is meant";
            return Err(self.finding(at, "this alias stands inside its own anchor".to_owned(), mend));
        };
        // Counted before it is copied: a few lines of aliases can stand for billions of nodes.
        let (added, text_bytes, height) = (anchored.nodes, anchored.text_bytes, anchored.depth);
        self.nodes += added - 1;
        self.text_bytes += text_bytes;
        self.check_budget(at)?;
        self.copy(added, text_bytes, at)?;
        if depth + height > DEPTH_MAX {
            return Err(self.finding(at, format!("aliases nest more than {DEPTH_MAX} levels deep"), "nest less"));
        }
        let node = self.anchors.get(&id).map_or_else(|| self.node(at, Value::Null), |anchored| anchored.node.clone());
        Ok(Built { node, depth: height, merges: false })
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Marker) -> Result<Node, Finding> {
        let Some(tag) = tag else {
            if style != ScalarStyle::Plain {
                return Ok(self.node(at, Value::String(text.to_owned())));
            }
            return Ok(self.plain(text, at));
        };
        let known = if tag.is_yaml_core_schema() { tag.suffix.as_str() } else { "" };
        let node = self.plain(text, at);
        let fits = match known {
            "str" => return Ok(self.node(at, Value::String(text.to_owned()))),
            "null" => node.is_null(),
            "bool" => matches!(node.value, Value::Bool(_)),
            "int" => matches!(node.value, Value::Int(_)),
            "timestamp" => matches!(node.value, Value::Timestamp(_)),
            "float" => match node.value {
                Value::Float(_) => true,
                // A number far beyond 2⁵³ is no float that anybody meant exactly.
                #[allow(clippy::cast_precision_loss)]
                Value::Int(i) => return Ok(Node { value: Value::Float(i as f64), ..node }),
                _ => false,
            },
            _ => return Err(self.unknown_tag(tag, at)),
        };
        if fits { Ok(node) } else { Err(self.finding(at, format!("{text:?} is no !!{known}"), "")) }
    }

    fn plain(&self, text: &str, at: Marker) -> Node {
        let mut node = self.node(at, scalar::resolve(text));
        if node.as_str().is_none() {
            node.source = Some(text.to_owned());
        }
        node
    }

    fn sequence(&mut self, at: Marker, depth: usize) -> Result<Built, Finding> {
        let (mut items, mut height) = (Vec::new(), 0);
        loop {
            let (event, item_at) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Built { node: self.node(at, Value::Seq(items)), depth: height + 1, merges: false });
            }
            let built = self.value(event, item_at, depth + 1)?;
            height = height.max(built.depth);
            items.push(built.node);
        }
    }

    fn mapping(&mut self, at: Marker, depth: usize) -> Result<Built, Finding> {
        let (mut keys, mut merges, mut height) = (Keys::default(), Vec::new(), 0);
        loop {
            let (event, key_at) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.value(event, key_at, depth + 1)?;
            let (event, value_at) = self.next()?;
            let value = self.value(event, value_at, depth + 1)?;
            height = height.max(value.depth);
            if key.merges {
                merges.push(value.node);
            } else {
                let entry = self.entry(key.node, value.node, key_at)?;
                match keys.place(&entry.key) {
                    Some(first) => self.duplicate(&entry, first),
                    None => keys.add(entry),
                }
            }
        }
        for merged in merges {
            merge(&mut keys, merged)?;
        }
        Ok(Built { node: self.node(at, Value::Map(Map(keys.entries))), depth: height + 1, merges: false })
    }

    fn entry(&self, key: Node, value: Node, at: Marker) -> Result<Entry, Finding> {
        let key_is_text = key.as_str().is_some();
        let text = match key.value {
            Value::String(text) => text,
            Value::Seq(_) | Value::Map(_) => {
                return Err(self.finding(at, "a list or a map cannot be a key".to_owned(), "quote it if it is text"));
            }
            _ => key.source.unwrap_or_default(),
        };
        if text.len() > KEY_BYTES_MAX {
            return Err(self.finding(
                at,
                format!("a key of {} bytes, at most {KEY_BYTES_MAX}", text.len()),
                "shorten it",
            ));
        }
        Ok(Entry { key: text, key_is_text, key_location: key.location, value })
    }

    fn duplicate(&mut self, second: &Entry, first: &Location) {
        if self.findings.len() >= DUPLICATES_MAX {
            return;
        }
        self.findings.push(Finding {
            location: Some(second.key_location.clone()),
            path: String::new(),
            message: format!("the key {:?} stands here a second time; the first is at line {}", second.key, first.line),
            mend: "keep one of them".to_owned(),
        });
    }

    fn check_budget(&self, at: Marker) -> Result<(), Finding> {
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        Err(self.finding(at, format!("more than {NODES_MAX} values, aliases expanded"), "use fewer aliases"))
    }

    /// Notes that a tree of this size is about to be copied.
    fn copy(&mut self, nodes: usize, text_bytes: usize, at: Marker) -> Result<(), Finding> {
        self.copied_bytes += nodes * (size_of::<Node>() + self.file.len()) + text_bytes;
        if self.copied_bytes <= COPIED_BYTES_MAX {
            return Ok(());
        }
        let message = format!("anchors and aliases stand for more than {} MiB", COPIED_BYTES_MAX >> 20);
        Err(self.finding(at, message, "use fewer aliases"))
    }

    fn check_tag(&self, tag: Option<&Tag>, expected: &str, at: Marker) -> Result<(), Finding> {
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == expected) => Err(self.unknown_tag(tag, at)),
            _ => Ok(()),
        }
    }

    fn unknown_tag(&self, tag: &Tag, at: Marker) -> Finding {
        let name = if tag.is_yaml_core_schema() {
            format!("!!{}", tag.suffix)
        } else {
            format!("{}{}", tag.handle, tag.suffix)
        };
        self.finding(at, format!("the tag {name} means nothing here"), "remove it")
    }

    fn syntax(&self, error: &ScanError) -> Finding {
        let at = *error.marker();
        let line = self.text.lines().nth(at.line().saturating_sub(1)).unwrap_or_default();
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        // The parser's own words ("block collection entries…") hide the commonest slip of all.
        if let Some(tab) = line.get(..indent).and_then(|indent| indent.find('\t')) {
            let at = Marker::new(0, at.line(), tab);
            return self.finding(at, "a tab indents this line, which YAML does not allow".to_owned(), "use spaces");
        }
        // The parser has a limit of its own.
        if error.info().contains("recursion limit") {
            return self.finding(at, format!("nested more than {DEPTH_MAX} levels deep"), "nest less");
        }
        self.finding(at, format!("not YAML: {}", error.info()), "look at the quotes, brackets and indents before it")
    }

    fn finding(&self, at: Marker, message: String, mend: &str) -> Finding {
        Finding { location: Some(self.place(at)), path: String::new(), message, mend: mend.to_owned() }
    }

    fn node(&self, at: Marker, value: Value) -> Node {
        Node { location: self.place(at), value, source: None }
    }

    fn place(&self, at: Marker) -> Location {
        Location { file: self.file.to_owned(), line: at.line(), column: at.col() + 1 }
    }
}

/// `<<`: what the map has already wins, then the first of the merged maps.
fn merge(keys: &mut Keys, merged: Node) -> Result<(), Finding> {
    let location = merged.location.clone();
    let maps = match merged.value {
        Value::Map(map) => vec![map],
        Value::Seq(items) if items.iter().all(|item| item.as_map().is_some()) => items
            .into_iter()
            .filter_map(|item| if let Value::Map(map) = item.value { Some(map) } else { None })
            .collect(),
        _ => {
            return Err(Finding {
                location: Some(location),
                path: "<<".to_owned(),
                message: "only a map or a list of maps can be merged".to_owned(),
                mend: "quote the key if it is text".to_owned(),
            });
        }
    };
    for entry in maps.into_iter().flatten() {
        if keys.place(&entry.key).is_none() {
            keys.add(entry);
        }
    }
    Ok(())
}

/// Entries in order, with an index to find duplicates in.
#[derive(Default)]
struct Keys {
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

impl Keys {
    fn add(&mut self, entry: Entry) {
        self.index.insert(entry.key.clone(), self.entries.len());
        self.entries.push(entry);
    }

    fn place(&self, key: &str) -> Option<&Location> {
        self.index.get(key).and_then(|&at| self.entries.get(at)).map(|entry| &entry.key_location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        match parse("f.yml", text) {
            Ok(node) => assert_eq!(node.to_string(), expected, "{text}"),
            Err(findings) => assert_eq!(findings.to_string(), expected, "{text}"),
        }
    }

    #[test]
    fn values_know_their_place() {
        let node = parse("f.yml", "services:\n  web:\n    image: nginx\n").unwrap();
        let web = node.as_map().unwrap().get("services").unwrap().as_map().unwrap().entry("web").unwrap();
        assert_eq!(web.key_location.to_string(), "f.yml:2:3");
        assert_eq!(web.value.as_map().unwrap().get("image").unwrap().location.to_string(), "f.yml:3:12");
    }

    #[test]
    fn quoted_scalars_are_text_and_tags_of_the_core_schema_work() {
        check(r#"["1", '2', !!str 3, !!float 4, 5]"#, r#"["1","2","3",4.0,5]"#);
        check("a: !!int x", "f.yml:1:4: \"x\" is no !!int");
        check("a: !reset []", "f.yml:1:4: the tag !reset means nothing here (remove it)");
    }

    #[test]
    fn merges_fill_in_what_is_absent() {
        check("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", r#"{"a":{"x":1,"y":2},"b":{"x":1,"y":3}}"#);
        check("[&a {x: 1}, &b {x: 2, y: 2}, {<<: [*a, *b]}]", r#"[{"x":1},{"x":2,"y":2},{"x":1,"y":2}]"#);
        check("'<<': 1", r#"{"<<":1}"#);
        check("a: {<<: 1}", "f.yml:1:9: <<: only a map or a list of maps can be merged (quote the key if it is text)");
    }

    #[test]
    fn every_duplicate_key_is_named_with_its_first_place() {
        check(
            "a: 1\nb: 1\na: 2\nc: {d: 1, d: 2}\n",
            "f.yml:3:1: the key \"a\" stands here a second time; the first is at line 1 (keep one of them)\n\
             f.yml:4:11: the key \"d\" stands here a second time; the first is at line 4 (keep one of them)",
        );
    }

    #[test]
    fn only_the_first_document_is_read() {
        check("a: 1\n---\nb: [", r#"{"a":1}"#);
        check("", "null");
        check("# nothing\n", "null");
        check("\u{feff}a: 1", r#"{"a":1}"#);
    }

    #[test]
    fn billions_of_laughs_are_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(",");
            text = format!("{text}a{n}: &a{n} [{aliases}]\n");
        }
        let error = parse("f.yml", &text).unwrap_err().to_string();
        assert!(error.contains("more than 200000 values, aliases expanded"), "{error}");
        check("a: &a [*a]", "f.yml:1:8: this alias stands inside its own anchor (write out what is meant)");
        let long = format!("a: &a \"{}\"\nb: [{}]", "x".repeat(1 << 20), vec!["*a"; 1 << 16].join(","));
        let error = parse("f.yml", &long).unwrap_err().to_string();
        assert!(error.contains("anchors and aliases stand for more than 64 MiB (use fewer aliases)"), "{error}");
        let nested = format!("{}[{}]{}", "[&a ".repeat(60), "x,".repeat(150_000), "]".repeat(60));
        let error = parse("f.yml", &nested).unwrap_err().to_string();
        assert!(error.contains("anchors and aliases stand for more than 64 MiB (use fewer aliases)"), "{error}");
    }

    #[test]
    fn a_key_has_a_limit_since_it_stands_in_the_path_of_all_below_it() {
        check(&format!("? {}\n: 1", "k".repeat(1025)), "f.yml:1:3: a key of 1025 bytes, at most 1024 (shorten it)");
    }

    #[test]
    fn depth_and_size_have_limits() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        check(&deep, "f.yml:1:65: nested more than 64 levels deep (nest less)");
        let error = parse("f.yml", &" ".repeat(BYTES_MAX + 1)).unwrap_err().to_string();
        assert_eq!(
            error,
            "f.yml:1: 4194305 bytes are more than the 4194304 that are read (part it into several files)"
        );
    }

    #[test]
    fn what_is_not_yaml_is_said_with_its_place() {
        check("a:\n\tb: 1\n", "f.yml:2:1: a tab indents this line, which YAML does not allow (use spaces)");
        let error = parse("f.yml", "a: [1\nb: 2").unwrap_err().to_string();
        assert!(error.starts_with("f.yml:2:"), "{error}");
        let error = parse_bytes("f.yml", b"a: 1\nb: \xff").unwrap_err().to_string();
        assert_eq!(error, "f.yml:2: not UTF-8: the byte at offset 8 begins no character (save the file as UTF-8)");
    }

    #[test]
    fn numbers_keep_their_spelling() {
        let node = parse("f.yml", "tag: 5.10").unwrap();
        let tag = node.as_map().unwrap().get("tag").unwrap();
        assert_eq!((tag.spelled(), tag.go_text().as_deref()), (Some("5.10"), Some("5.1")));
    }

    proptest::proptest! {
        #[test]
        fn no_text_whatever_ends_the_process(text in "[-a-z0-9:,&*!|>%@`'\"#?{}\\[\\]<~. \t\n\r\u{feff}é]{0,60}") {
            let _ = parse("f.yml", &text);
        }
    }
}
