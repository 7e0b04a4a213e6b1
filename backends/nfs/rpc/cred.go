package rpc

import (
	"os"

	"sluice/backends/nfs/xdr"
)

// MaxGroups is how many supplementary groups AUTH_SYS can carry.
const MaxGroups = 16

// Cred is who the calls are made for: AUTH_SYS of RFC 5531, appendix A.
type Cred struct {
	UID, GID uint32
	Groups   []uint32 // those beyond MaxGroups are left out
	Machine  string   // name of this host; cut to 255 bytes
}

// ProcessCred is the user that this process runs as.
func ProcessCred() Cred {
	c := Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if groups, err := os.Getgroups(); err == nil {
		for _, g := range groups {
			c.Groups = append(c.Groups, uint32(g))
		}
	}
	c.Machine, _ = os.Hostname()
	return c
}

const (
	authNone = 0
	authSys  = 1
)

// append appends the credential and an empty verifier.
func (c *Cred) append(b []byte) []byte {
	if c == nil {
		b = xdr.AppendUint32(b, authNone)
		b = xdr.AppendUint32(b, 0)
	} else {
		b = xdr.AppendUint32(b, authSys)
		b = xdr.AppendOpaque(b, c.Body())
	}
	b = xdr.AppendUint32(b, authNone)
	return xdr.AppendUint32(b, 0)
}

// Body is the structure authsys_parms.
func (c *Cred) Body() []byte {
	groups := c.Groups[:min(len(c.Groups), MaxGroups)]
	b := xdr.AppendUint32(nil, 0) // the stamp is ours to choose
	b = xdr.AppendString(b, c.Machine[:min(len(c.Machine), 255)])
	b = xdr.AppendUint32(b, c.UID)
	b = xdr.AppendUint32(b, c.GID)
	b = xdr.AppendUint32(b, uint32(len(groups)))
	for _, g := range groups {
		b = xdr.AppendUint32(b, g)
	}
	return b
}
