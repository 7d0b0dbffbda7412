"""How many mutants of image parsers, signatures and the verifier do their tests kill?  Prints a table; fails below a share.

Areas: parsers (archives, descriptors, DER, ELF and PE), signatures, installation (depots, profiles, what a host accepts and
holds), attest (all of `sim/attest`).  See `mutation_score`
for the manner.
"""

import sys
from pathlib import Path

from mutant_runs import KILLED, SURVIVED, Tests, nearest
from mutation_score import Area, Planted, Study, files_of, main, with_facts

PARSERS = (
    *("ar", "boundedjson", "boundedxml", "boundedzip", "tar", "vtar", "payload", "trailer", "der", "growth"),
    *("descriptor", "vib", "metadata", "imgdb", "bootcfg", "manifest", "paths", "versions", "contents"),
    *("elf", "elf_file", "elf_format", "elf_hash", "elf_object", "elf_read", "elf_text", "elf_values"),
    *("elf_versions", "pe"),
)
SIGNATURES = (
    *("cms", "signed_data", "signature_layout", "chain", "certificate", "crl", "algorithms", "trust"),
    *("efi", "efi_lists", "bankcheck", "dbx"),
)
INSTALLATION = (
    *("bundle", "install", "installfiles", "acceptance", "profile", "pathrules", "succession", "tree"),
    "bootbank",
)
UNIT = "tests/unit/image/test_"
PARSER_TESTS = (
    *("ar", "boundedxml", "bundle", "tar", "vtar", "payload", "trailer", "der", "certificate"),
    *("descriptor", "vib", "imgdb", "bootcfg", "manifest", "paths", "versions", "contents", "install"),
    *(
        "elf",
        "elf_linking",
        "elf_objects",
        "elf_refusals",
        "elf_names",
        "elf_hash",
        "elf_limits",
        "elf_tables",
        "efi",
        "bankcheck",
    ),
    *("refused_archives", "refused_descriptors", "refused_images", "refused_texts", "refused_signatures"),
    *("boundedjson", "boundedzip", "growth"),
)
SIGNATURE_TESTS = (
    *("cms", "cms_structure", "certificate", "crl", "pki", "trailer", "efi", "bankcheck", "vib"),
    *("acceptance", "cms_openssl", "refused_signatures", "refused_lists", "signature_layout", "dbx"),
)
INSTALLATION_TESTS = (
    *("bundle", "install", "installfiles", "acceptance", "bootbank", "catalog", "vib", "inspection"),
    *("refused_depots", "pathrules"),
)
ATTEST_TESTS = (
    *("tests/unit/attest", "tests/unit/vsphere/test_policy_engines.py", "tests/unit/image/test_platform.py"),
    *("tests/vectors/test_esxi_report.py", "tests/vectors/test_survey.py"),
)


def unit(names):
    return tuple(f"{UNIT}{name}.py" for name in names)


def near(path):
    return with_facts(path, nearest(path))


def area(package, names, paths):
    return Area(files=files_of(package, names), tests=Tests(paths=paths, near=near))


VTAR = {"path": Path("sim/image/vtar.py"), "function": "is_vtar", "was": "data[257:265] =="}
CHAIN = {"path": Path("sim/image/chain.py"), "function": "check_path_length", "was": "below > authority"}
QUOTE = {
    "path": Path("sim/attest/quote.py"),
    "function": "check_qualified_signer",
    "was": "qualifiedSigner !=",
}
PLANTED = {
    Planted(**VTAR, now="data[257:264] =="): KILLED,
    Planted(**VTAR, now="data[0x101:265] =="): SURVIVED,
    Planted(**CHAIN, now="below >= authority"): KILLED,
    Planted(**CHAIN, now="+below > authority"): SURVIVED,
    Planted(**QUOTE, now="qualifiedSigner =="): KILLED,
    Planted(**QUOTE, now="qualifiedSigner is not None and attest.qualifiedSigner !="): SURVIVED,
}
"""Changes of one function in each area, with the outcomes that they must have."""

STUDY = Study(
    title=__doc__.partition("\n")[0],
    areas={
        "parsers": area("image", PARSERS, unit(PARSER_TESTS)),
        "signatures": area("image", SIGNATURES, unit(SIGNATURE_TESTS)),
        "installation": area("image", INSTALLATION, unit(INSTALLATION_TESTS)),
        "attest": Area(
            files=files_of("attest", ("*", "engines/*")) + files_of("image", ("platform",)),
            tests=Tests(paths=ATTEST_TESTS, near=near),
        ),
    },
    planted=PLANTED,
    sample=150,
    survivors="image-mutants.txt",
)


if __name__ == "__main__":
    sys.exit(main(STUDY))
