# SPDX-License-Identifier: GPL-3.0-or-later
# For Packer 1.7 and later, which installs its plugins itself: packer init packer/plugins
#
# In a folder of its own because Packer 1.6, Debian's, does not know this block and has both plugins built in.

packer {
  required_version = ">= 1.7.0"

  required_plugins {
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = "~> 1.1"
    }
    ansible = {
      source  = "github.com/hashicorp/ansible"
      version = "~> 1.1"
    }
  }
}
