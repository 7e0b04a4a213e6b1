package suite

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"sluice/bench/report"
)

// transfer runs a program that copies, once, between a file and the exporter's export, and samples the program.
func (r *runner) transfer(ctx context.Context, c cell) (s report.Sample, err error) {
	server := exporter()
	p, err := r.server(ctx, server)
	if err != nil {
		return s, err
	}
	defer p.stop()
	target := r.data.copied()
	defer func() { err = errors.Join(err, removeFile(target)) }()
	names := strings.NewReplacer("{socket}", r.socket(server), "{source}", r.data.source, "{copy}", target)
	places := Places{Sluice: r.Sluice, From: names.Replace(c.workload.from), To: names.Replace(c.workload.to)}
	return r.withMachine(func() (report.Sample, error) {
		begin := time.Now()
		_, used, err := runCounted(ctx, c.server.Args(places)...)
		if err != nil {
			return report.Sample{}, err
		}
		return report.Sample{Bytes: r.Size, Seconds: time.Since(begin).Seconds(), ServerCPU: used.cpu, RSSBytes: used.rss}, nil
	})
}

// removeFile removes a file that may not be there.
func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
