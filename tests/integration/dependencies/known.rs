//! What was looked at before it came in. A new name fails a test until it is written here.

/// Direct dependencies, and what each saves us from writing or getting wrong.
pub(super) const DIRECT: [(&str, &str); 46] = [
    ("arc-swap", "rules, keys and snapshots replaced whole while they are read without a lock"),
    ("arrayvec", "header values put together on the stack; BLAKE3 brings it anyway"),
    ("aws-lc-rs", "the one crypto provider: TLS, digests, randomness, comparison in constant time"),
    ("base64", "the strict alphabet of `data:` URLs and tokens"),
    ("blake3", "the keyed hash of fingerprints, and checksums of ledger values"),
    ("bytes", "bodies that are passed on and shared without being copied"),
    ("clap", "the command line and its help"),
    ("foldhash", "a quick hash that finds a poll's job and tells whether its answer is the last one again"),
    ("governor", "rate limits as GCRA, with cells of ours"),
    ("hex", "hex digits, both ways"),
    ("http-body", "the trait of bodies that hyper takes"),
    ("http-body-util", "bodies put together, limited and collected"),
    (
        "httparse",
        "reads answers to polls, and for the simulated upstream what really came, also what hyper would refuse",
    ),
    ("hyper", "HTTP/1 and HTTP/2, both ways, on bytes and deadlines of ours"),
    ("hyper-util", "tokio's streams and timers as hyper's"),
    ("ipnet", "networks of trusted proxies"),
    ("itoa", "numbers of the log without the standard library's formatter"),
    ("jsonschema", "draft 2020-12, all faults at once"),
    ("jsonwebtoken", "tokens for browsers, signed and checked"),
    ("memchr", "the upstream key is searched for in all that passes"),
    ("mimalloc", "the allocator: cheaper buffers, and memory given back when connections go idle"),
    ("moka", "the bounded cache of hot entries"),
    ("prometheus", "registry and text of the metrics"),
    ("proptest", "tests: properties over many inputs, made small when they fail"),
    ("rcgen", "tests: certificates"),
    ("redb", "the ledger on disk: transactions that survive a kill"),
    ("redis", "the ledger of several replicas"),
    ("rustix", "system calls without `unsafe` of ours: signals, limits, locks, socket options"),
    ("rustls", "TLS"),
    ("rustls-native-certs", "the system's authorities"),
    ("secrecy", "keys that no Debug prints and no drop leaves behind"),
    ("serde", "forms of what is stored and told"),
    ("serde_json", "JSON, and the strict reader's lexer"),
    ("serde_json_canonicalizer", "tests: another hand's RFC 8785, to compare fingerprints with"),
    ("siphasher", "names of bodies as they came, which nobody can make collide"),
    ("strsim", "near misses of names"),
    ("thiserror", "errors with their texts beside them"),
    ("tokio", "the runtime"),
    ("tokio-rustls", "TLS on tokio's streams"),
    ("tokio-util", "cancellation and the tracking of tasks that a shutdown waits for"),
    ("toml", "the configuration, with places for its faults"),
    ("tracing", "events of the log"),
    ("tracing-subscriber", "the log's two forms"),
    ("unicode-normalization", "users counted once however their name is spelled"),
    ("webpki-roots", "Mozilla's authorities, where the system has none"),
    ("x509-cert", "when our own certificate ends"),
];

/// Packages whose build script runs on whoever builds this. All ask the compiler for its version or features, write
/// tables, or (aws-lc-sys, libmimalloc-sys) run the C compiler; none reaches for the network.
pub(super) const BUILD_SCRIPTS: [&str; 29] = [
    "ahash",
    "aws-lc-rs",
    "aws-lc-sys",
    "blake3",
    "crossbeam-epoch",
    "crossbeam-utils",
    "getrandom",
    "httparse",
    "jsonschema-value",
    "libc",
    "libmimalloc-sys",
    "num-traits",
    "parking_lot_core",
    "portable-atomic",
    "proc-macro2",
    "prometheus",
    "quote",
    "redb",
    "ref-cast",
    "rustix",
    "rustls",
    "rustversion",
    "serde",
    "serde_core",
    "serde_json",
    "thiserror",
    "unicode-general-category",
    "zerocopy",
    "zmij",
];

/// Packages whose macros run inside the compiler.
pub(super) const MACROS: [&str; 11] = [
    "clap_derive",
    "der_derive",
    "futures-macro",
    "ref-cast-impl",
    "rustversion",
    "serde_derive",
    "strum_macros",
    "thiserror-impl",
    "tokio-macros",
    "tracing-attributes",
    "zeroize_derive",
];

/// Packages that bring a library in another language: C and assembly, built from their own sources.
pub(super) const LINKED: [&str; 3] = ["aws-lc-rs", "aws-lc-sys", "libmimalloc-sys"];

/// How many packages there may be in all, those of the tests included. It is raised by hand, in the commit that says why.
pub(super) const PACKAGES: usize = 223;
