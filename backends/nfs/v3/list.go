package v3

import (
	"context"
	"errors"
	"strings"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/xdr"
	"sluice/block"
)

const (
	maxEntries = 1 << 20
	listBytes  = 128 << 10 // of a reply
)

// listing reads a folder.
type listing struct {
	c        *Client
	fh       handle
	plus     bool // with READDIRPLUS
	cookie   uint64
	verifier [8]byte
	end      bool
	seen     map[uint64]struct{} // cookies that the next part was asked for with
	got      int                 // entries that came, also those that are left out
	entries  []remote.Entry
}

// dirEntry is one of a page.
type dirEntry struct {
	name string
	attributes
}

func (l *listing) read(ctx context.Context) error {
	for !l.end {
		page, err := l.page(ctx)
		if err != nil {
			return l.fail(err)
		}
		if l.got > maxEntries {
			return l.fail(faultf(block.NoSpace, "the folder has more than %d entries", maxEntries))
		}
		for i := range page {
			if err := l.add(ctx, &page[i]); err != nil {
				return l.fail(err)
			}
		}
	}
	return nil
}

func (l *listing) fail(err error) error {
	l.entries = nil
	return err
}

func (l *listing) proc() uint32 {
	if l.plus {
		return procReadDirPlus
	}
	return procReadDir
}

// page asks for the next part.
func (l *listing) page(ctx context.Context) ([]dirEntry, error) {
	l.seen[l.cookie] = struct{}{}
	b := append(xdr.AppendUint64(xdr.AppendOpaque(nil, l.fh), l.cookie), l.verifier[:]...)
	b = xdr.AppendUint32(b, listBytes)
	if l.plus { // dircount came before
		b = xdr.AppendUint32(b, listBytes)
	}
	r, err := l.c.ask(ctx, l.proc(), b)
	if err != nil {
		return nil, err
	}
	page := l.decode(&r)
	if err := r.check(); err != nil {
		return nil, err
	}
	if _, again := l.seen[l.cookie]; again && !l.end {
		return nil, breach(nameOf(l.proc()), "it comes to no end")
	}
	return page, nil
}

// decode takes a page off the results.
func (l *listing) decode(r *result) (page []dirEntry) {
	skipPost(&r.Reader)
	copy(l.verifier[:], r.Fixed(len(l.verifier)))
	for r.More() {
		var e dirEntry
		l.got++
		r.Skip(8) // the fileid of where something may be mounted
		e.name = r.String(maxName)
		l.cookie = r.Uint64()
		if l.plus {
			e.readPost(&r.Reader)
			readPostHandle(&r.Reader)
		}
		if e.name == "" || strings.ContainsAny(e.name, "/\x00") {
			r.Fail()
		}
		if e.name != "." && e.name != ".." {
			page = append(page, e)
		}
	}
	l.end = r.Bool()
	return page
}

// add takes an entry up. The attributes of one that came without are looked up; it may be
// gone by then.
func (l *listing) add(ctx context.Context, e *dirEntry) error {
	if !e.known {
		n, err := lookup(ctx, l.c, l.fh, e.name)
		if errors.Is(err, block.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		e.attributes = n.attributes
	}
	l.entries = append(l.entries, remote.Entry{Name: e.name, Attr: e.Attr})
	return nil
}
