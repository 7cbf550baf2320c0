"""The `vlmpack` command's parts, a file each. They know the processors, for rows come as users have them."""
