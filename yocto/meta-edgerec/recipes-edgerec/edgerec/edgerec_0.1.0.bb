SUMMARY = "Recorder of camera and encoder streams"
DESCRIPTION = "Records RTSP and RTMP streams to a flash ring by rules, and delivers the files."
SECTION = "multimedia"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"
CVE_PRODUCT = "edgerec"

# Before the classes: externalsrc looks at what is to be fetched.
require edgerec-crates.inc

inherit externalsrc cargo systemd useradd

EXTERNALSRC = "${EDGEREC_SOURCE}"
EXTERNALSRC_BUILD = "${WORKDIR}/build"

# The board of the machine: a folder of board/.
EDGEREC_BOARD ?= "generic-arm64"
EDGEREC_BOARD:x86-64 ?= "generic-x86-64"

do_configure:append() {
    install -d ${CARGO_HOME}
}

do_install:append() {
    install -d ${D}${systemd_system_unitdir}/edgerec.service.d
    install -m 0644 ${S}/systemd/edgerec.service ${D}${systemd_system_unitdir}/
    install -m 0644 ${S}/systemd/data.mount ${D}${systemd_system_unitdir}/
    install -m 0644 ${S}/board/${EDGEREC_BOARD}/edgerec.conf \
        ${D}${systemd_system_unitdir}/edgerec.service.d/50-board.conf
    install -d ${D}${nonarch_libdir}/tmpfiles.d ${D}${nonarch_libdir}/udev/rules.d
    install -m 0644 ${S}/systemd/edgerec.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/edgerec.conf
    install -m 0644 ${S}/systemd/90-edgerec-data.rules ${D}${nonarch_libdir}/udev/rules.d/
    if [ -e ${S}/board/${EDGEREC_BOARD}/99-edgerec.rules ]; then
        install -m 0644 ${S}/board/${EDGEREC_BOARD}/99-edgerec.rules \
            ${D}${nonarch_libdir}/udev/rules.d/
    fi
    if [ -e ${S}/board/${EDGEREC_BOARD}/watchdog.conf ]; then
        install -d ${D}${nonarch_libdir}/systemd/system.conf.d
        install -m 0644 ${S}/board/${EDGEREC_BOARD}/watchdog.conf \
            ${D}${nonarch_libdir}/systemd/system.conf.d/50-edgerec-watchdog.conf
    fi
    install -d ${D}${datadir}/edgerec/board/${EDGEREC_BOARD} ${D}${docdir}/edgerec
    install -m 0644 ${S}/board/${EDGEREC_BOARD}/board.toml \
        ${D}${datadir}/edgerec/board/${EDGEREC_BOARD}/
    install -m 0644 ${S}/README.md ${S}/SECURITY.md ${S}/CHANGELOG.md ${D}${docdir}/edgerec/
    # The root is read-only: what `edgerec provision` writes lies on the data partition.
    install -d ${D}${sysconfdir}
    ln -s /data${sysconfdir}/edgerec ${D}${sysconfdir}/edgerec
    sed -i -e 's|^d ${sysconfdir}/edgerec |d /data${sysconfdir} 0755 root root -\nd /data${sysconfdir}/edgerec |' \
        ${D}${nonarch_libdir}/tmpfiles.d/edgerec.conf
    install -d ${D}/data
}

FILES:${PN} += "\
    /data \
    ${nonarch_libdir}/tmpfiles.d \
    ${nonarch_libdir}/udev \
    ${nonarch_libdir}/systemd \
    ${systemd_system_unitdir} \
"

SYSTEMD_SERVICE:${PN} = "edgerec.service data.mount"

# The number is that of systemd/edgerec.sysusers: files on /data keep their owner.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system --gid 880 edgerec"
USERADD_PARAM:${PN} = "\
    --system --uid 880 --gid edgerec --no-create-home --home-dir /data/edgerec \
    --shell /sbin/nologin edgerec \
"
