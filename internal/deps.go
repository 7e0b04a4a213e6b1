// Package internal pins modules until their users land.
package internal

import (
	_ "github.com/coreos/go-systemd/v22/activation"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/pojntfx/go-nbd/pkg/protocol"
	_ "github.com/pojntfx/go-nbd/pkg/server"
	_ "github.com/prometheus/client_golang/prometheus/collectors"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/schollz/progressbar/v3"
	_ "github.com/spf13/cobra/doc"
	_ "go.uber.org/goleak"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "pgregory.net/rapid"
)
