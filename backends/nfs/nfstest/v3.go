package nfstest

var nfs3, mount3, portmap2 [0]proc
