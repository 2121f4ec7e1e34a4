// Carries the precompiled header that the RPC targets share.
