# SPDX-License-Identifier: GPL-3.0-or-later
# A golden image the Packer way: a cloud image is booted, site.yml runs on it over SSH, it is sealed and packed.
# README.md says how, and when playbooks/image.yml is the better way.

locals {
  root = abspath("${path.root}/..")
  # Paths of the seed are given to Ansible, which may stand elsewhere.
  seed = abspath(var.seed)
  host = "golden-image"

  firmware = var.firmware == "" ? [] : [["-bios", var.firmware]]

  ansible = [
    "ANSIBLE_HOST_KEY_CHECKING=True",
    "ANSIBLE_INVENTORY_ENABLED=ini",
    "ANSIBLE_PIPELINING=True",
    # Without KVM a login takes many seconds, and sudo may take longer than Ansible's usual patience.
    "ANSIBLE_TIMEOUT=120",
  ]
  # The host key was planted by the seed, and Ansible checks it. Without Packer's proxy in between: its key would be nobody's.
  arguments = concat([
    "--extra-vars", "@${local.seed}/variables.json",
    "--ssh-common-args", "-o UserKnownHostsFile=${local.seed}/known_hosts -o HostKeyAlias=${local.host} -o StrictHostKeyChecking=yes",
  ], var.layer_variables == "" ? [] : ["--extra-vars", "@${abspath(var.layer_variables)}"])
}

source "qemu" "golden" {
  iso_url      = var.image_url
  iso_checksum = var.image_checksum
  disk_image   = true
  # Packer 1.6 does not say of which format the file below is, which every current qemu-img wants to be told.
  use_backing_file = false

  vm_name          = "${var.name}.qcow2"
  output_directory = var.output
  format           = "qcow2"
  disk_size        = var.disk_size
  disk_interface   = "virtio"
  # Blocks that were freed are given back, so that they are not in the image.
  disk_discard       = "unmap"
  disk_detect_zeroes = "unmap"
  disk_compression   = true

  accelerator = var.accelerator
  headless    = true
  memory      = var.memory_mib
  cpus        = var.cpus
  net_device  = "virtio-net"

  qemuargs = concat([
    ["-cpu", var.cpu],
    # So that cloud-init need not guess by the disks that this is NoCloud.
    ["-smbios", "type=1,serial=ds=nocloud"],
    # Packer does not check host keys, and would listen on every address of this machine.
    ["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"],
  ], local.firmware)

  cd_label = "cidata"
  cd_files = ["${local.seed}/cidata/user-data", "${local.seed}/cidata/meta-data"]

  communicator         = "ssh"
  ssh_username         = "admin"
  ssh_private_key_file = "${local.seed}/key"
  ssh_timeout          = var.ssh_timeout
  # Seconds a first boot spends on itself need not be answered with a new handshake each.
  ssh_handshake_attempts = 1000

  boot_wait        = "1s"
  shutdown_command = "sudo systemctl poweroff"
  shutdown_timeout = "10m"
}

build {
  sources = ["source.qemu.golden"]

  # 2 means that it is done and had something to remark, as it has on images with an older style of configuration.
  provisioner "shell" {
    inline = ["sudo cloud-init status --wait >/dev/null || [ $? -eq 2 ]"]
  }

  # The same layers that configure live machines, then what makes a machine's file system an image's.
  provisioner "ansible" {
    playbook_file    = "${local.root}/site.yml"
    host_alias       = local.host
    user             = "admin"
    groups           = ["fleet", "running"]
    use_proxy        = false
    ansible_env_vars = local.ansible
    extra_arguments  = concat(["--tags", var.tags], local.arguments)
  }

  provisioner "ansible" {
    playbook_file    = "${local.root}/packer/seal.yml"
    host_alias       = local.host
    user             = "admin"
    groups           = ["running"]
    use_proxy        = false
    ansible_env_vars = local.ansible
    extra_arguments  = concat(["--extra-vars", "image_name=${var.name} image_layers=${var.tags}"], local.arguments)
  }
}
