package main

import (
	"github.com/spf13/cobra"

	"sluice/gateway"
	"sluice/gateway/endpoint"
	"sluice/nbd"
)

// tlsFlags are the flags that make serve speak TLS.
type tlsFlags struct {
	mode          string
	cert, key, ca string
	allow         []string
}

func (f *tlsFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.mode, "tls", "", "when to speak TLS: off, optional or required (default: required with --tls-cert, else off)")
	flags.StringVar(&f.cert, "tls-cert", "", "file with the server's certificate (PEM)")
	flags.StringVar(&f.key, "tls-key", "", "file with the certificate's key (PEM)")
	flags.StringVar(&f.ca, "tls-ca", "", "file with the authority (PEM) that must have signed clients' certificates; without it clients need none")
	flags.StringArrayVar(&f.allow, "tls-allow", nil, "let in only clients with this common name in their certificate (may be repeated)")
	complete(cmd, "tls", "off", "optional", "required")
}

// forced reports whether nothing but TLS is spoken.
func (f *tlsFlags) forced() bool { return f.mode == "required" || f.mode == "" && f.cert != "" }

// apply fills in what the flags say.
func (f *tlsFlags) apply(cmd *cobra.Command, cfg *gateway.SingleConfig) error {
	given := f.cert != "" || f.key != "" || f.ca != "" || len(f.allow) > 0
	switch f.mode {
	case "", "required":
		cfg.TLSMode = nbd.TLSForced
	case "optional":
		cfg.TLSMode = nbd.TLSOptional
	case "off":
		if given {
			return usagef(cmd, "--tls off goes with no other --tls flag")
		}
	default:
		return usagef(cmd, "--tls %s is none of off, optional and required", f.mode)
	}
	switch {
	case !given && (f.mode == "" || f.mode == "off"):
		cfg.TLSMode = nbd.TLSOff
		return nil
	case f.cert == "" || f.key == "":
		return usagef(cmd, "TLS needs both --tls-cert and --tls-key")
	case len(f.allow) > 0 && f.ca == "":
		return usagef(cmd, "--tls-allow needs --tls-ca, which proves the clients' names")
	}
	cfg.Allow = f.allow
	var err error
	cfg.TLS, err = endpoint.ServerTLS(f.cert, f.key, f.ca)
	return err
}
