#!/usr/bin/env python3
"""Writes cases.json: what ironic-python-agent's own code says to root device hints.

    python3 -m venv v && v/bin/pip install --no-deps ironic-python-agent==13.0.0
    v/bin/pip install oslo.utils==10.2.0 oslo.log pyparsing==3.3.3
    v/bin/python generate.py > cases.json

Each case is a hint and, for each disk, "yes", "no" or "fails" (an exception: the deployment fails).
"""

import importlib.util
import json
import logging
import sysconfig

logging.disable(logging.CRITICAL)
PATH = sysconfig.get_paths()["purelib"] + "/ironic_python_agent/device_hints.py"
SPEC = importlib.util.spec_from_file_location("device_hints", PATH)
device_hints = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(device_hints)

GIB = 1 << 30
NOTHING = dict.fromkeys(
    ["model", "vendor", "wwn_with_extension", "wwn_vendor_extension", "hctl", "by_path", "tran"]
) | {"serial": [], "wwn": []}
DISKS = [
    NOTHING | {"name": "/dev/vda", "size": 12 * GIB, "rotational": True},
    NOTHING
    | {
        "name": "/dev/sda",
        "size": 100 * GIB,
        "rotational": True,
        "model": "PERC H730 Mini",
        "vendor": "DELL",
        "serial": ["00a1B2c3", "6D0946602A3B4C00", "36d0946602a3b4c00"],
        "wwn": ["0x6d0946602a3b4c00", "0x6d0946602a3b4c00123456789abcdef0"],
        "wwn_with_extension": "0x6d0946602a3b4c00123456789abcdef0",
        "wwn_vendor_extension": "0x123456789abcdef0",
        "hctl": "0:2:0:0",
        "by_path": "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:2:0:0",
        "tran": "sas",
    },
    NOTHING
    | {
        "name": "/dev/nvme0n1",
        "size": 960197124096,
        "rotational": False,
        "model": "SAMSUNG MZQL2960HCJR-00A07",
        "serial": ["S64FNE0R500123"],
        "wwn": ["eui.36344630525001230025384500000001"],
        "by_path": "/dev/disk/by-path/pci-0000:01:00.0-nvme-1",
        "tran": "nvme",
    },
    NOTHING | {"name": "/dev/sdb", "size": 100 * GIB + 512, "rotational": True, "model": "7200", "serial": ["42", "x"]},
    NOTHING | {"name": "/dev/sdc", "size": 1, "rotational": True, "model": "", "vendor": " ", "serial": [""]},
    NOTHING | {"name": "/dev/sdd", "size": 4 * GIB, "rotational": False, "model": "Ünïcode & co. (x)", "vendor": "s==x"},
]

OPERATORS = ["=", "==", "!=", ">=", "<=", ">", "<", "s==", "s!=", "s<", "s<=", "s>", "s>=", "<in>", "<or>"]
LISTS = ["<all-in> {}", "<all-in> {} <all-in> {}", "<range-in> [ {} {} ]", "<range-in> ( {} {} )", "<range-in> [ {} {} )"]
SIZES = ["100", "12", "894", "895", "99", "4", "0", "-5", "1.5", "ten", "100 200"]
TEXTS = {
    "model": ["PERC H730 Mini", "perc h730 mini", "perc", "7200", "7e3", "none", "Ünïcode & co. (x)", "samsung", "zz"],
    "vendor": ["dell", "DELL", "none", "s==x", "ell"],
    "serial": ["00A1b2C3", "6d0946602a3b4c00", "42", "41", "x", "none", "s64"],
    "wwn": ["0x6d0946602a3b4c00", "0X6D0946602A3B4C00123456789ABCDEF0", "eui.", "none"],
    "wwn_with_extension": ["0x6d0946602a3b4c00123456789abcdef0", "none"],
    "wwn_vendor_extension": ["0x123456789abcdef0"],
    "name": ["/dev/sda", "/dev/SDA", "sda", "/dev/"],
    "hctl": ["0:2:0:0", "0:2"],
    "by_path": ["/dev/disk/by-path/pci-0000:01:00.0-nvme-1", "nvme"],
    "tran": ["nvme", "sas"],
}


def hints():
    for size in SIZES:
        yield "size", size
        for operator in OPERATORS:
            yield "size", f"{operator} {size}"
    yield from (("size", each) for each in ["", ">=", "<or> 12 <or> 100", "<all-in> 1 2", ">=100", " >=  100 ", "=100"])
    for key, values in TEXTS.items():
        for value in values:
            yield key, value
            for operator in OPERATORS:
                yield key, f"{operator} {value}"
                yield key, f"{operator}{value}"
        pairs = zip(values, values[1:] + values[:1])
        yield from ((key, f"<or> {one} <or> {other}") for one, other in pairs)
        yield from ((key, each.format(values[0], values[-1])) for each in LISTS)
    for odd in ["", "  ", "s==", "<or>", "<or> <or> x", ">= >= 5", "<in> <in> perc", "s== perc s== zz", "perc s== zz", "<perc"]:
        yield "model", odd
    yield from (("size", each.format(1, 200)) for each in LISTS)
    # What JSON has besides text.
    for key in ["size", "model", "rotational"]:
        yield from ((key, each) for each in [100, 12, 1, 0, -5, 100.0, 99.5, 7200, True, False, None, ["100"], {"100": 1}])
    for value in ["true", "False", "1", "0", "yes", "NO", "on", "off", "t", "f", "y", "n", "maybe", "", "2"]:
        yield "rotational", value


def verdict(disk, key, expression):
    try:
        return "yes" if device_hints.match_root_device_hints([dict(disk)], {key: expression}) else "no"
    except Exception:
        return "fails"


def main():
    cases = [[key, each, [verdict(disk, key, each) for disk in DISKS]] for key, each in hints()]
    lines = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in cases)
    disks = ",\n".join("  " + json.dumps(disk, ensure_ascii=False) for disk in DISKS)
    print(f'{{"disks": [\n{disks}\n], "cases": [\n{lines}\n]}}')


if __name__ == "__main__":
    main()
