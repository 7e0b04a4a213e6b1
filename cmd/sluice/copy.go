package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/backends/location"
	"sluice/block"
	"sluice/block/size"
	"sluice/gateway/image"
	"sluice/imagecopy"
)

const copyLong = `Copy an image to another place, whatever kind each of the two is.

Zeroes are not copied but left out: those that the source says it has, and runs
of zeroes inside its data. The destination is flushed before the command ends.

A destination that is not there yet is made under a temporary name, and gets its
own when it is complete and durable; until then, and after an interrupt, there is
nothing of that name. A file that is there already is refused: --force replaces
it in the same manner (it stays untouched until the copy is complete), --in-place
writes into it, as into block devices and NBD exports. There a copy that fails
half-way leaves a mixture, which the error says.

The destination must be at least as large as the source. What it has beyond that
stays as it is.

An image that another program writes is refused as a source; --unlocked copies it
all the same, and the copy may be a mixture of old and new.`

const copyExample = `  sluice copy disk.img /dev/vg0/disk
  sluice copy nbd://storage1/db db.img
  sluice copy db.img nbd+unix:///db?socket=/run/db.sock --connections 4
  sluice copy old.img new.img --sparse 64K --progress`

// copyFlags are the flags of copy.
type copyFlags struct {
	*globals
	srcFormat, format     string
	progress              string
	connections, requests int
	requestSize, sparse   string
	noExtents             bool
	allocated             bool
	destinationZero       bool
	direct                bool
	unlocked              bool
	force, inPlace        bool
}

func newCopy(g *globals) *cobra.Command {
	f := &copyFlags{globals: g}
	cmd := &cobra.Command{
		Use:     "copy SOURCE DESTINATION",
		Short:   "Copy an image",
		Long:    copyLong,
		Example: copyExample,
		Args:    exactly("the source", "the destination"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1]) },
	}
	flags := cmd.Flags()
	formatFlag(cmd, &f.srcFormat, "src-format", "the source")
	formatFlag(cmd, &f.format, "format", "the destination")
	flags.StringVar(&f.progress, "progress", "auto", "show a progress bar on standard error; `WHEN` is auto (on a terminal), on or off")
	flags.Lookup("progress").NoOptDefVal = "on"
	complete(cmd, "progress", "auto", "on", "off")
	flags.IntVar(&f.connections, "connections", 4, "connections to each NBD server that permits several")
	flags.IntVar(&f.requests, "parallel", 0, "requests in flight (default 16; 4 between local files)")
	flags.StringVar(&f.requestSize, "request-size", "512K", "longest read and write, a multiple of 4K up to 32M")
	flags.StringVar(&f.sparse, "sparse", "", "leave out runs of zeroes of this size and more inside data; 0 copies them (default: 4K, or the destination's preferred block size)")
	flags.BoolVar(&f.noExtents, "no-extents", false, "read all of the source, whatever it says of its holes")
	flags.BoolVar(&f.allocated, "allocated", false, "give zeroes space in the destination")
	flags.BoolVar(&f.destinationZero, "destination-is-zero", false, "the destination reads as zeroes everywhere: do not write any")
	flags.BoolVar(&f.direct, "direct", false, "bypass the page cache on both sides (O_DIRECT)")
	flags.BoolVar(&f.unlocked, "unlocked", false, "take no lock on the source")
	flags.BoolVar(&f.force, "force", false, "replace a file that is there already")
	flags.BoolVar(&f.inPlace, "in-place", false, "write into a file that is there already")
	return cmd
}

// options reads the flags that shape the copying itself.
func (f *copyFlags) options(cmd *cobra.Command) (imagecopy.Options, error) {
	o := imagecopy.Options{
		Requests: f.requests, IgnoreExtents: f.noExtents, DestinationZero: f.destinationZero, Allocate: f.allocated,
	}
	request, err := size.Parse(f.requestSize)
	switch {
	case err != nil:
		return o, usagef(cmd, "--request-size: %w", err)
	case request < 4096 || request > 32<<20 || request%4096 != 0:
		return o, usagef(cmd, "--request-size %s is no multiple of 4K from 4K to 32M", f.requestSize)
	case f.requests < 0 || f.requests > 1024:
		return o, usagef(cmd, "--parallel %d is not in 0 ... 1024", f.requests)
	case f.connections < 1 || f.connections > 64:
		return o, usagef(cmd, "--connections %d is not in 1 ... 64", f.connections)
	case f.force && f.inPlace:
		return o, usagef(cmd, "--force and --in-place exclude each other")
	}
	o.RequestSize = int(request)
	if f.sparse == "" {
		return o, nil
	}
	grain, err := size.Parse(f.sparse)
	switch {
	case err != nil:
		return o, usagef(cmd, "--sparse: %w", err)
	case grain%512 != 0:
		return o, usagef(cmd, "--sparse %s is no multiple of 512", f.sparse)
	case grain == 0:
		o.Grain = -1
	default:
		o.Grain = grain
	}
	return o, nil
}

// copied is what copy prints as JSON.
type copied struct {
	Source      string  `json:"source"`
	Destination string  `json:"destination"`
	Size        int64   `json:"size"`
	Data        int64   `json:"data"`
	Zeroed      int64   `json:"zeroed"`
	Skipped     int64   `json:"skipped"`
	Seconds     float64 `json:"seconds"`
}

func (f *copyFlags) run(cmd *cobra.Command, from, to string) error {
	opts, err := f.options(cmd)
	if err != nil {
		return err
	}
	show, err := wantsProgress(cmd, f.progress)
	if err != nil {
		return err
	}
	if sameImage(from, to) {
		return block.Errorf(block.Invalid, "copy", location.Redact(from)+" to "+location.Redact(to), -1, "source and destination are the same image")
	}
	ctx := cmd.Context()
	src, err := openImageAs(ctx, f.connected(from), image.Format{Name: f.srcFormat, From: "--src-format"}, block.OpenOptions{ReadOnly: true, Direct: f.direct, Unlocked: f.unlocked})
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	begin := time.Now()
	dst, err := f.openTarget(ctx, to, src.Info().Size)
	if err != nil {
		return err
	}
	opts.DestinationZero = opts.DestinationZero || dst.fresh()
	opts.NoFlush = dst.fresh() // end flushes it
	bar := newProgress(cmd.ErrOrStderr(), src.Info().Size, show)
	opts.Progress = bar.add
	result, err := imagecopy.Copy(ctx, dst.device, src, opts)
	bar.finish()
	report := copied{
		Source: location.Redact(from), Destination: location.Redact(to), Size: src.Info().Size,
		Data: result.Data, Zeroed: result.Zeroed, Skipped: result.Skipped,
	}
	if err = dst.end(ctx, err); err != nil {
		return report.failed(ctx, dst, result.Begun, err)
	}
	if !f.json {
		return nil
	}
	report.Seconds = time.Since(begin).Seconds()
	return printJSON(cmd.OutOrStdout(), report)
}

// failed says what a copy that failed has left behind. begun tells whether
// something was written, complete or not.
func (c copied) failed(ctx context.Context, dst *target, begun bool, err error) error {
	cause := err
	if wasInterrupted(ctx, err) {
		cause = errors.New("interrupted")
	}
	left := "nothing was left behind"
	switch {
	case dst.replaces():
		left = "the old file is as it was"
	case !dst.fresh() && begun:
		left = fmt.Sprintf("at least %d of %d bytes were copied: the destination holds a mixture", c.Data+c.Zeroed+c.Skipped, c.Size)
	case !dst.fresh():
		left = "nothing was written"
	}
	return &block.Error{
		Kind: block.KindOf(err), Op: "copy", Object: c.Source + " to " + c.Destination, Off: -1,
		Err: fmt.Errorf("%w (%s)", cause, left),
	}
}

// connected asks for several connections where the URL is an NBD server's and
// does not say how many.
func (f *copyFlags) connected(url string) string {
	scheme := location.Scheme(url)
	if !strings.HasPrefix(scheme, "nbd") || strings.Contains(url, "connections=") {
		return url
	}
	sep := "?"
	if strings.Contains(url, "?") {
		sep = "&"
	}
	return url + sep + "connections=" + strconv.Itoa(f.connections)
}
