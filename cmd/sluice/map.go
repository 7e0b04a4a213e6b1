package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sluice/block"
)

const mapLong = `Show which ranges of an image hold data.

Each line is a run of bytes of one state: where it starts, how long it is, how
deep in the chain of backing images it lies (0: nowhere, 1: in this image), and

  data       bytes that were written
  zero       space that reads as zeroes
  hole       no space is allocated
  hole,zero  both: no space, reads as zeroes

An image that another program writes is refused; --unlocked looks anyway, and
may show a mixture of old and new.`

const mapExample = `  sluice map disk.img
  sluice map --json nbd://storage1/db`

type mapFlags struct {
	*globals
	format   string
	unlocked bool
}

func newMap(g *globals) *cobra.Command {
	f := &mapFlags{globals: g}
	cmd := &cobra.Command{
		Use:     "map URL",
		Short:   "Show which ranges of an image hold data",
		Long:    mapLong,
		Example: mapExample,
		Args:    exactly("the image's URL"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	formatFlag(cmd, &f.format, "format", "the image")
	cmd.Flags().BoolVar(&f.unlocked, "unlocked", false, "take no image lock")
	return cmd
}

// mapped is what map prints as JSON, in a list.
type mapped struct {
	Start  int64  `json:"start"`
	Length int64  `json:"length"`
	Depth  uint32 `json:"depth"`
	Hole   bool   `json:"hole"`
	Zero   bool   `json:"zero"`
}

func (f *mapFlags) run(cmd *cobra.Command, url string) (err error) {
	dev, err := openImage(cmd.Context(), url, f.format, block.OpenOptions{ReadOnly: true, Unlocked: f.unlocked})
	if err != nil {
		return err
	}
	defer func() {
		if e := dev.Close(); err == nil {
			err = e
		}
	}()
	out := bufio.NewWriter(cmd.OutOrStdout())
	printer := mapPrinter{out: out, json: f.json}
	printer.begin()
	if err := walkExtents(cmd.Context(), dev, printer.line); err != nil {
		return err
	}
	printer.end()
	return out.Flush()
}

// walkExtents calls each with every run of one state.
func walkExtents(ctx context.Context, dev block.Device, each func(mapped)) error {
	r := block.Resolve(dev)
	var run mapped
	extents := make([]block.Extent, 0, 1024)
	for off := int64(0); off < r.Info.Size; {
		var err error
		extents, err = r.ExtentsAt(ctx, off, r.Info.Size-off, extents[:0])
		if err != nil {
			return err
		}
		for _, e := range extents {
			next := mapped{Start: off, Length: e.Len, Depth: e.Depth, Hole: e.State&block.Hole != 0, Zero: e.State&block.Zero != 0}
			off += e.Len
			if run.Length > 0 && run.Depth == next.Depth && run.Hole == next.Hole && run.Zero == next.Zero {
				run.Length += next.Length
				continue
			}
			if run.Length > 0 {
				each(run)
			}
			run = next
		}
	}
	if run.Length > 0 {
		each(run)
	}
	return nil
}

// mapPrinter writes runs as they come: an image may have millions. Errors stay
// with out.
type mapPrinter struct {
	out  io.Writer
	json bool
	rest bool // not the first one
}

func (p *mapPrinter) begin() {
	if p.json {
		_, _ = io.WriteString(p.out, "[")
		return
	}
	_, _ = fmt.Fprintf(p.out, "%15s %15s %5s  %s\n", "START", "LENGTH", "DEPTH", "STATE")
}

func (p *mapPrinter) line(m mapped) {
	if !p.json {
		_, _ = fmt.Fprintf(p.out, "%15d %15d %5d  %s\n", m.Start, m.Length, m.Depth, m.state())
		return
	}
	text, _ := json.Marshal(m) // numbers and bools
	sep := "\n  "
	if p.rest {
		sep = ",\n  "
	}
	p.rest = true
	_, _ = io.WriteString(p.out, sep+string(text))
}

func (p *mapPrinter) end() {
	if p.json {
		_, _ = io.WriteString(p.out, "\n]\n")
	}
}

func (m mapped) state() string {
	switch {
	case m.Hole && m.Zero:
		return "hole,zero"
	case m.Hole:
		return "hole"
	case m.Zero:
		return "zero"
	}
	return "data"
}
