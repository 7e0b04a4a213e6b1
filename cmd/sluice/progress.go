package main

import (
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// wantsProgress reads --progress.
func wantsProgress(cmd *cobra.Command, mode string) (bool, error) {
	switch mode {
	case "on":
		return true, nil
	case "off":
		return false, nil
	case "auto":
		f, ok := cmd.ErrOrStderr().(*os.File)
		return ok && term.IsTerminal(int(f.Fd())), nil
	}
	return false, usagef(cmd, "--progress %s is none of auto, on and off", mode)
}

// progressInterval is the time between two updates of the bar.
const progressInterval = 100 * time.Millisecond

// progress is a progress bar that many goroutines feed, or nothing at all. Its
// own goroutine draws it, until finish.
type progress struct {
	bytes atomic.Int64
	bar   *progressbar.ProgressBar // nil without one
	over  chan struct{}
	ended chan struct{}
}

func newProgress(w io.Writer, total int64, show bool) *progress {
	p := &progress{}
	if !show {
		return p
	}
	p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true), progressbar.OptionShowTotalBytes(true), progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(30), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(0))
	p.bar.StartWithoutRender() // the rate counts from here, not from the first piece
	p.over, p.ended = make(chan struct{}), make(chan struct{})
	go p.draw(w)
	return p
}

// add counts bytes that are done.
func (p *progress) add(n int64) { p.bytes.Add(n) }

// draw updates the bar until finish. Where the terminal cannot be written to,
// there is nobody to tell.
func (p *progress) draw(w io.Writer) {
	defer close(p.ended)
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		_ = p.bar.Set64(p.bytes.Load())
		select {
		case <-tick.C:
		case <-p.over:
			_ = p.bar.Set64(p.bytes.Load())
			_, _ = io.WriteString(w, "\n")
			return
		}
	}
}

// finish draws the bar for the last time.
func (p *progress) finish() {
	if p.bar != nil {
		close(p.over)
		<-p.ended
	}
}
