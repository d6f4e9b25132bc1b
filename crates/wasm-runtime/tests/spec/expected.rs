//! What fails on purpose, and why.

/// Reason, and the files.
pub const EXPECTED: &[(&str, &[&str])] = &[
    (
        "custom descriptors are a proposal, and off",
        &[
            "custom-descriptors/array_new_exact.wast",
            "custom-descriptors/binary-descriptors.wast",
            "custom-descriptors/br_on_cast.wast",
            "custom-descriptors/br_on_cast_desc_eq.wast",
            "custom-descriptors/br_on_cast_desc_eq_fail.wast",
            "custom-descriptors/br_on_cast_fail.wast",
            "custom-descriptors/descriptors.wast",
            "custom-descriptors/exact-casts.wast",
            "custom-descriptors/exact-func-import.wast",
            "custom-descriptors/exact.wast",
            "custom-descriptors/ref_cast_desc_eq.wast",
            "custom-descriptors/ref_get_desc.wast",
            "custom-descriptors/struct_new_desc.wast",
        ],
    ),
    (
        "custom page sizes are a proposal, and off",
        &[
            "custom-page-sizes/custom-page-sizes-invalid.wast",
            "custom-page-sizes/custom-page-sizes.wast",
            "custom-page-sizes/memory_max.wast",
            "custom-page-sizes/memory_max_i64.wast",
        ],
    ),
    (
        "it wants refused what a newer version of WebAssembly allows",
        &[
            "function-references/binary.wast",
            "memory64/binary.wast",
            "memory64/memory.wast",
            "memory64/memory64.wast",
            "multi-value/binary.wast",
            "reference-types/binary-leb128.wast",
            "reference-types/binary.wast",
            "reference-types/imports.wast",
            "reference-types/unreached-invalid.wast",
            "wasm-v1/binary-leb128.wast",
            "wasm-v1/imports.wast",
            "wasm-v1/memory.wast",
            "wasm-v2/binary-leb128.wast",
            "wasm-v2/binary.wast",
            "wasm-v2/imports.wast",
            "wasm-v2/memory.wast",
        ],
    ),
    ("it has a module of 9 memories: the pool has 8 for each", &["multi-memory/float_exprs1.wast"]),
    (
        "before bulk memory, nothing was written when one of several segments did not fit",
        &["mutable-global/linking.wast"],
    ),
    (
        "shared memories are off: the memory limit could not count them",
        &["threads/atomic.wast", "threads/exports.wast", "threads/imports.wast", "threads/memory.wast"],
    ),
    ("it wants other words of the error", &["wasm-v1/elem.wast"]),
    ("it has a table of 4 billion elements: the pool has 100,000 for each", &["wasm-v3/table.wast"]),
    ("wide arithmetic is a proposal, and off", &["wide-arithmetic/wide-arithmetic.wast"]),
];
