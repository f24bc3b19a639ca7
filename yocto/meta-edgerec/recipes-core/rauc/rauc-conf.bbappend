FILESEXTRAPATHS:prepend := "${THISDIR}/files:"

do_install:prepend() {
    sed -i -e 's/@MACHINE@/${MACHINE}/' ${UNPACKDIR}/system.conf
}
