# SPDX-License-Identifier: GPL-3.0-or-later
# Everything that can be said with -var or in a -var-file. What the layers are told is apart: see layer_variables.

variable "seed" {
  type        = string
  description = "The folder that packer/seed has made: keys, what the host key will be, and the seed of cloud-init."
}

variable "image_url" {
  type        = string
  default     = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-generic-amd64.qcow2"
  description = "The cloud image to begin with: an address or a path. It must have cloud-init."
}

variable "image_checksum" {
  type        = string
  default     = "file:https://cloud.debian.org/images/cloud/trixie/latest/SHA512SUMS"
  description = "Its checksum, as 'sha256:...', or 'file:' and the address of a list."
}

variable "name" {
  type        = string
  default     = "golden"
  description = "What the image is called."
}

variable "output" {
  type        = string
  default     = "packer-output"
  description = "The folder that the image is left in. It must not exist."
}

variable "tags" {
  type        = string
  default     = "base,docker"
  description = "The layers, as tags of site.yml."
}

variable "layer_variables" {
  type        = string
  default     = ""
  description = "A YAML file with variables of the layers' roles."
}

variable "accelerator" {
  type        = string
  default     = "kvm"
  description = "Or tcg, which emulates and needs nothing, and takes many times as long."
}

variable "cpu" {
  type        = string
  default     = "max"
  description = "The processor as QEMU calls it."
}

variable "cpus" {
  type    = number
  default = 2
}

variable "memory_mib" {
  type    = number
  default = 2048
}

variable "disk_size" {
  type        = string
  default     = "10G"
  description = "The size of the disk, which the root file system grows to. An image on a larger disk is no larger file."
}

variable "firmware" {
  type        = string
  default     = ""
  description = "Left empty: BIOS. Or the path of an UEFI firmware that needs no variables, such as /usr/share/ovmf/OVMF.fd."
}

variable "ssh_timeout" {
  type        = string
  default     = "15m"
  description = "How long the first boot may take."
}
