"""Mamba-2 layers in the files of mamba-ssm: names of tensors, what fits, and export."""
