SUMMARY = "Example of a recorder's image"
DESCRIPTION = "Read-only root in two slots, the ring on a data partition, updates by RAUC."
LICENSE = "Apache-2.0"

inherit core-image features_check

REQUIRED_DISTRO_FEATURES = "systemd rauc"

# Nothing writes to the root, so that a power cut cannot break it, and a slot can be compared and replaced.
IMAGE_FEATURES += "read-only-rootfs"

IMAGE_INSTALL:append = " edgerec rauc e2fsprogs-e2fsck e2fsprogs-resize2fs"

IMAGE_FSTYPES = "ext4 wic.zst wic.bmap"
WKS_FILE = "edgerec-ab.wks"
# What is mounted is said by units: a line in fstab would be of one slot and go before data.mount.
WIC_CREATE_EXTRA_ARGS = "--no-fstab-update"
# A slot is as large as the largest system that may come.
IMAGE_ROOTFS_MAXSIZE = "524288"
