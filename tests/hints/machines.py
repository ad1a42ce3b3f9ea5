#!/usr/bin/env python3
"""Writes machines.json: which disk ironic-python-agent's own code takes on machines that this file describes.

    python3 -m venv v && v/bin/pip install ironic-python-agent==13.0.0
    v/bin/python machines.py > machines.json

Each machine is a tree like sysfs, which the real lsblk reads (--sysroot), and what udev knows of its disks. Its choices
are root device hints, none for the obvious disk, and the disk's node, or null where the deployment fails.
"""

import json
import logging
import os
import subprocess
import tempfile
import types

import ironic_python_agent.config  # noqa: F401: the other modules want its options
from ironic_python_agent import errors, hardware

logging.disable(logging.CRITICAL)

GIB = 1 << 30


def disk(name, number, at, size, files=None, links=None, udev=None):
    """A block device: its directory is in `at`, which is its `device`; files are relative to its own directory."""
    common = {
        "dev": number,
        "size": str(size // 512),
        "removable": "0",
        "ro": "0",
        "queue/rotational": "1",
        "queue/logical_block_size": "512",
        "queue/physical_block_size": "512",
    }
    return {
        "name": name,
        "at": at,
        "files": common | (files or {}),
        "links": links or {},
        "udev": udev or {},
    }


def scsi(name, number, host, size, driver, files=None, links=None, udev=None):
    """A disk of a SCSI host of its own."""
    address = f"{host}:0:0:0"
    at = f"pci0000:00/0000:00:1f.{host}/host{host}/target{host}:0:0/{address}"
    own = {"device/type": "0", f"device/scsi_device/{address}/device": ""}
    made = disk(name, number, at, size, own | (files or {}), links, udev)
    made["host"] = {f"pci0000:00/0000:00:1f.{host}/host{host}/scsi_host/host{host}/proc_name": driver}
    return made


def ata(name, number, host, size, model, serial, wwn, driver="ahci", files=None, links=None):
    """A disk on an ATA port, as the kernel and udev's ata_id tell it."""
    own = {"device/vendor": "ATA     ", "device/model": model, "device/wwid": f"naa.{wwn}"}
    udev = {
        "ID_BUS": "ata",
        "ID_MODEL": model.replace(" ", "_"),
        "ID_SERIAL": f"{model.replace(' ', '_')}_{serial}",
        "ID_SERIAL_SHORT": serial,
        "ID_WWN": f"0x{wwn}",
        "ID_WWN_WITH_EXTENSION": f"0x{wwn}",
    }
    own |= {"serial": serial}
    return scsi(name, number, host, size, driver, own | (files or {}), links, udev)


def sas(name, number, host, size, serial, naa, links=None):
    """A disk as udev's scsi_id tells it."""
    own = {"device/vendor": "DELL    ", "device/model": "PERC H730 Mini  ", "serial": serial, "device/wwid": f"naa.{naa}"}
    udev = {
        "ID_MODEL": "PERC_H730_Mini",
        "ID_SCSI_SERIAL": serial,
        "ID_SERIAL": f"3{naa}",
        "ID_SERIAL_SHORT": naa,
        "ID_WWN": f"0x{naa[:16]}",
        "ID_WWN_WITH_EXTENSION": f"0x{naa}",
    }
    if naa[16:]:
        udev["ID_WWN_VENDOR_EXTENSION"] = f"0x{naa[16:]}"
    return scsi(name, number, host, size, "megaraid_sas", own, links, udev)


def nvme(name, number, size, model, serial, wwid, files=None):
    own = {"device/model": model, "device/serial": serial, "wwid": wwid, "nsid": "1", "queue/rotational": "0"}
    udev = {
        "ID_MODEL": model,
        "ID_SERIAL": f"{model.replace(' ', '_')}_{serial}",
        "ID_SERIAL_SHORT": serial,
        "ID_WWN": wwid,
    }
    at = f"pci0000:00/0000:00:1d.0/nvme/{name.rsplit('n', 1)[0]}"
    return disk(name, number, at, size, own | (files or {}), None, udev)


def virtio(name, number, at, size, serial=None):
    own = {"device/vendor": "0x1af4"} | ({"serial": serial} if serial else {})
    return disk(name, number, f"pci0000:00/{at}", size, own, None, {"ID_SERIAL": serial} if serial else {})


VIRTUAL = "virtual"
NOTHING = [
    disk("loop0", "7:0", VIRTUAL, 100 * GIB),
    disk("ram0", "1:0", VIRTUAL, 8 * GIB),
    disk("zram0", "251:0", VIRTUAL, 8 * GIB),
    disk("fd0", "2:0", VIRTUAL, 8 * GIB),
]
AUTO = {}

MACHINES = [
    {
        "what": "disks of all kinds, and what is no disk",
        "disks": NOTHING
        + [
            scsi("sr0", "11:0", 7, 5 * GIB, "ahci", {"device/type": "5", "removable": "1"}),
            scsi("sdb", "8:16", 5, 0, "usb-storage", {"removable": "1"}),
            ata("sda", "8:0", 1, 480 * GIB, "INTEL SSDSC2KB480G8", "PHYF1", "55cd2e4150d4ee8f", files={"queue/rotational": "0"}),
            ata("sdc", "8:32", 2, 480 * GIB, "INTEL SSDSC2KB480G8", "PHYF2", "55cd2e4150d4ee90", files={"queue/rotational": "0"}),
            ata("sdd", "8:48", 3, 2000 * GIB, "ST2000NM0033", "Z1X0", "5000c5007b2c5a11", driver="ata_piix"),
            sas("sdaa", "65:160", 4, 2000 * GIB, "00a1b2c3", "6d0946602a3b4c00123456789abcdef0"),
            nvme("nvme0n1", "259:0", 894 * GIB, "SAMSUNG MZQL2960HCJR-00A07", "S64FNE0R500123", "eui.36344630525001230025384500000001"),
            nvme("nvme1n1", "259:1", 480 * GIB, "SAMSUNG MZQL2960HCJR-00A07", "S64FNE0R500124", "eui.36344630525001240025384500000001"),
        ],
        "hints": [
            AUTO,
            {"size": ">= 400"},
            {"size": ">= 400", "rotational": False},
            {"size": 894},
            {"size": ">= 2000"},
            {"size": ">= 2000", "tran": "s== ata"},
            {"size": ">= 2000", "vendor": "dell"},
            {"rotational": True},
            {"rotational": 1},
            {"rotational": "no", "size": "> 480"},
            {"model": "<in> samsung"},
            {"model": "s== st2000nm0033"},
            {"serial": "PHYF2"},
            {"serial": "INTEL_SSDSC2KB480G8_PHYF2"},
            {"serial": "SAMSUNG_MZQL2960HCJR-00A07_S64FNE0R500124"},
            {"serial": "36d0946602a3b4c00123456789abcdef0"},
            {"serial": "<or> nothing <or> z1x0"},
            {"wwn": "0x55cd2e4150d4ee90"},
            {"wwn": "0x6d0946602a3b4c00"},
            {"wwn_with_extension": "0x6d0946602a3b4c00123456789abcdef0"},
            {"wwn_vendor_extension": "0x123456789abcdef0"},
            {"wwn": "eui.36344630525001240025384500000001"},
            {"tran": "sata"},
            {"tran": "nvme"},
            {"hctl": "3:0:0:0"},
            {"name": "/dev/sdaa"},
            {"name": "s!= /dev/sda"},
            {"name": "/dev/sr0"},
            {"name": "/dev/sdb"},
            {"name": "/dev/ram0"},
            {"size": ">= 4000"},
        ],
    },
    {
        "what": "sizes at the edge, and several of the same",
        "disks": [
            virtio("vda", "253:0", "virtio0", 4 * GIB - 512),
            virtio("vdb", "253:16", "virtio1", 4 * GIB, "second"),
            disk("mmcblk0", "179:0", "platform/mmc0", 4 * GIB),
            disk("mmcblk0boot0", "179:8", "platform/mmc0/b", 4 << 20),
            virtio("vdaa", "252:160", "virtio2", 4 * GIB),
        ],
        "hints": [AUTO, {"size": "<= 4"}, {"size": 4}, {"serial": "second"}],
    },
    {
        "what": "nothing that is large enough",
        "disks": [virtio("vda", "253:0", "virtio0", 3 * GIB)],
        "hints": [AUTO, {"size": 3}],
    },
    {
        "what": "a software RAID of disks, one of partitions, and an array that is none",
        "disks": [
            ata("sda", "8:0", 1, 100 * GIB, "A", "A1", "5000000000000001", links={"holders/md127": "virtual/block/md127"}),
            ata("sdb", "8:16", 2, 100 * GIB, "A", "A2", "5000000000000002", links={"holders/md127": "virtual/block/md127"}),
            ata(
                "sdc",
                "8:32",
                3,
                50 * GIB,
                "A",
                "A3",
                "5000000000000003",
                files={"sdc1/partition": "1", "sdc1/dev": "8:33", "sdc1/size": "100"},
                links={"sdc1/holders/md126": "virtual/block/md126"},
            ),
            disk("md127", "9:127", VIRTUAL, 99 * GIB, {"md/level": "raid1"}),
            disk("md126", "9:126", VIRTUAL, 60 * GIB, {"md/level": "raid0"}),
            disk("md125", "9:125", VIRTUAL, 5 * GIB, {"md/level": "linear"}),
        ],
        "hints": [AUTO, {"size": 99}, {"size": 5}, {"name": "/dev/sda"}, {"name": "/dev/sdc"}, {"size": ">= 55"}],
        "refused": {"/dev/sda": "a member of a software RAID", "/dev/sdc": "a member of a software RAID"},
    },
    {
        "what": "two ways to one disk, and volumes on another",
        "disks": [
            sas("sda", "8:0", 1, 100 * GIB, "same", "600508b4000971ca0000f00010650000", {"holders/dm-0": "virtual/block/dm-0"}),
            sas("sdb", "8:16", 2, 100 * GIB, "same", "600508b4000971ca0000f00010650000", {"holders/dm-0": "virtual/block/dm-0"}),
            sas("sdc", "8:32", 3, 200 * GIB, "other", "600508b4000971ca", {"holders/dm-1": "virtual/block/dm-1"}),
            disk(
                "dm-0",
                "252:0",
                VIRTUAL,
                100 * GIB,
                {"dm/uuid": "mpath-3600508b4000971ca0000f00010650000", "dm/name": "mpatha"},
                udev={"DM_WWN": "0x600508b4000971ca0000f00010650000", "DM_SERIAL": "3600508b4000971ca0000f00010650000"},
            ),
            disk("dm-1", "252:1", VIRTUAL, 10 * GIB, {"dm/uuid": "LVM-abc", "dm/name": "vg-root"}),
            disk("dm-2", "252:2", VIRTUAL, 20 * GIB, {"dm/uuid": "CRYPT-LUKS2-abc", "dm/name": "root"}),
            disk("dm-3", "252:3", VIRTUAL, 30 * GIB, {"dm/uuid": "part1-mpath-3600508b4", "dm/name": "mpatha1"}),
        ],
        "hints": [
            AUTO,
            {"size": 100},
            {"size": "<= 30"},
            {"wwn": "0x600508b4000971ca0000f00010650000"},
            {"serial": "3600508b4000971ca0000f00010650000"},
            {"wwn": "0x600508b4000971ca"},
            {"name": "/dev/dm-0"},
            {"name": "/dev/sda"},
        ],
    },
    {
        "what": "what Landfall leaves alone, and ironic-python-agent does not",
        "disks": [
            scsi("sda", "8:0", 1, 8 * GIB, "usb-storage", {"removable": "1"}),
            disk("vda", "253:0", "pci0000:00/virtio0", 6 * GIB, {"ro": "1"}),
            virtio("vdb", "253:16", "virtio1", 20 * GIB),
        ],
        "hints": [AUTO, {"size": 8}, {"size": 20}, {"size": 6}],
        "refused": {"/dev/vda": "read-only"},
    },
    {
        "what": "a stick is not the obvious disk",
        "disks": [
            scsi("sda", "8:0", 1, 8 * GIB, "usb-storage", {"removable": "1"}),
            virtio("vdb", "253:16", "virtio1", 20 * GIB),
        ],
        "hints": [AUTO, {"size": 8}],
        "refused": {"/dev/sda": "its medium is removable"},
    },
]


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def link(path, target):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(os.path.relpath(target, os.path.dirname(path)), path)


def build(machine, root):
    """Makes the machine's /sys and, for lsblk, a file of udev's properties for each disk in /dev."""
    for each in machine["disks"]:
        at = f"{root}/sys/devices/{each['at']}"
        own = f"{at}/block/{each['name']}"
        os.makedirs(own)
        # As the kernel makes it: lsblk reads a SCSI address from its end.
        os.symlink(f"../../../{os.path.basename(at)}", f"{own}/device")
        for name, text in each["files"].items():
            write(f"{own}/{name}", text)
        for name, target in each["links"].items():
            link(f"{own}/{name}", f"{root}/sys/devices/{target}")
        for name, text in each.get("host", {}).items():
            write(f"{root}/sys/devices/{name}", text)
            kind, host = name.split("/")[-3:-1]
            link(f"{root}/sys/class/{kind}/{host}", os.path.dirname(f"{root}/sys/devices/{name}"))
        for place in [f"block/{each['name']}", f"class/block/{each['name']}", f"dev/block/{each['files']['dev']}"]:
            link(f"{root}/sys/{place}", own)
        write(f"{root}/dev/{each['name']}", "".join(f"{key}={value}\n" for key, value in each["udev"].items()))


class Inside:
    """The module `os` with this machine's /sys and /dev/disk replaced."""

    def __init__(self, root):
        self.root = root

    def __getattr__(self, name):
        return getattr(os, name)

    def listdir(self, path):
        return os.listdir(self.root + path)


def multipath_of(machine, name):
    """What the program `multipath` says."""
    links = next(each["links"].values() for each in machine["disks"] if each["name"] == name)
    uuids = {each["name"]: each["files"].get("dm/uuid", "") for each in machine["disks"]}
    holders = [target.split("/")[-1] for target in links]
    return next((holder for holder in holders if uuids[holder].startswith("mpath-")), None)


def choices(machine, root):
    """The answers of ironic-python-agent to all hints."""

    def execute(*command, **_):
        assert command[0] == "lsblk", command
        lsblk = [command[0], "--sysroot", root, *command[1:]]
        return subprocess.run(lsblk, check=True, capture_output=True, text=True).stdout, ""

    udev = {f"/dev/{each['name']}": each["udev"] for each in machine["disks"]}
    missing = type("Missing", (Exception,), {})
    hardware.pyudev = types.SimpleNamespace(
        Context=lambda: None,
        Devices=types.SimpleNamespace(from_device_file=lambda _, name: udev[name]),
        DeviceNotFoundByFileError=missing,
        DeviceNotFoundByNumberError=missing,
    )
    hardware.utils.execute = execute
    hardware.disk_utils.udev_settle = lambda: None
    hardware.get_multipath_status = lambda: True
    hardware._get_multipath_parent_device = lambda name: multipath_of(machine, name)
    hardware.os = Inside(root)
    hardware.open = lambda path, *rest: open(root + path, *rest)
    hardware.filter_devices = lambda devices: devices
    manager = hardware.GenericHardwareManager()
    for hints in machine["hints"]:
        node = {"uuid": "1", "instance_info": {}, "properties": {"root_device": hints}}
        hardware.get_cached_node = lambda: node
        try:
            yield [hints, manager.get_os_install_device()]
        except errors.DeviceNotFound:
            yield [hints, None]


def main():
    out = []
    for machine in MACHINES:
        with tempfile.TemporaryDirectory() as root:
            build(machine, root)
            answers = list(choices(machine, root))
        fields = ["name", "at", "files", "links", "host"]
        disks = [{field: each[field] for field in fields if each.get(field)} for each in machine["disks"]]
        lines = [
            f' "what": {json.dumps(machine["what"])}',
            ' "disks": [\n' + ",\n".join("  " + json.dumps(each) for each in disks) + "\n ]",
            ' "choices": [\n' + ",\n".join("  " + json.dumps(each) for each in answers) + "\n ]",
            f' "refused": {json.dumps(machine.get("refused", {}))}',
        ]
        out.append("{\n" + ",\n".join(lines) + "\n}")
    print("[" + ",\n".join(out) + "]")


if __name__ == "__main__":
    main()
