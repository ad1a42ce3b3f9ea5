"""Asks cloud-init's own DataSourceConfigDrive what it finds on one disk; prints that as JSON.

    PYTHONPATH=... python3 read.py DISK DIRECTORY
"""

import json
import sys

from cloudinit import helpers, util
from cloudinit.sources import DataSourceConfigDrive

DISK, DIRECTORY = sys.argv[1:]

# Other disks of this machine are nobody's business here. What blkid says of this one decides.
find_devs_with = util.find_devs_with


def find_on_disk(*arguments, **options):
    return [device for device in find_devs_with(*arguments, **options) if device.startswith(DISK)]


util.find_devs_with = find_on_disk
PATHS = helpers.Paths({"cloud_dir": DIRECTORY, "run_dir": DIRECTORY})
SOURCE = DataSourceConfigDrive.DataSourceConfigDrive({}, None, PATHS)
FOUND = SOURCE._get_data()
print(
    json.dumps(
        {
            "found": FOUND,
            "device": SOURCE.source,
            "version": SOURCE.version,
            "metadata": SOURCE.metadata if FOUND else None,
            "user_data": util.decode_binary(SOURCE.userdata_raw) if FOUND else None,
            "vendor_data2": SOURCE.vendordata2_raw if FOUND else None,
            "network": SOURCE.network_json if FOUND else None,
        },
        default=str,
    )
)
