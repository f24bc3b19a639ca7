SUMMARY = "Update of a recorder's system"
DESCRIPTION = "A RAUC bundle with the root of edgerec-image for the slot that is not running."
LICENSE = "Apache-2.0"

inherit bundle

# Read while it is installed and checked block by block: no room for a copy is needed.
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_COMPATIBLE = "edgerec-${MACHINE}"
RAUC_BUNDLE_SLOTS = "rootfs"
RAUC_SLOT_rootfs = "edgerec-image"
RAUC_SLOT_rootfs[fstype] = "ext4"
