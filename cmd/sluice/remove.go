package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sluice/backends"
	"sluice/backends/location"
	"sluice/block"
	"sluice/gateway/image"
)

const removeLong = `Remove images.

Only images are removed: folders, devices, symbolic links and everything else are
refused, as is an image that another program uses, or of which that cannot be told
(--force removes such an image all the same).`

const removeExample = `  sluice rm disk.img
  sluice rm old1.img old2.img`

type removeFlags struct {
	*globals
	force bool
}

func newRemove(g *globals) *cobra.Command {
	f := &removeFlags{globals: g}
	cmd := &cobra.Command{
		Use:     "rm URL...",
		Short:   "Remove images",
		Long:    removeLong,
		Example: removeExample,
		Args:    atLeastOne("the image's URL"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	cmd.Flags().BoolVar(&f.force, "force", false, "remove an image that is in use")
	return cmd
}

// removed is what rm prints as JSON.
type removed struct {
	Removed []string `json:"removed"`
}

// run removes all it can and reports what failed.
func (f *removeFlags) run(cmd *cobra.Command, urls []string) error {
	result := removed{Removed: []string{}}
	failures := each(cmd.Context(), urls, func(url string) error {
		if err := f.remove(cmd.Context(), url); err != nil {
			return err
		}
		result.Removed = append(result.Removed, location.Redact(url))
		return nil
	})
	return f.tell(cmd.OutOrStdout(), result, failures)
}

// tell prints what was removed, where that is wanted, and gives what failed.
func (g *globals) tell(w io.Writer, result removed, failures error) error {
	if !g.json {
		return failures
	}
	if err := printJSON(w, result); failures == nil {
		return err
	}
	return failures
}

func (f *removeFlags) remove(ctx context.Context, url string) error {
	store, name, err := backends.LocateEntry(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	entry, err := statEntry(ctx, store, name)
	if err != nil {
		return err
	}
	switch {
	case entry.Kind == "symlink":
		return notALink(url)
	case entry.Kind != "file":
		return block.Errorf(block.Invalid, "remove", location.Redact(url), -1, "is not an image (kind: %s)", entry.Kind)
	}
	if !f.force {
		if err := unused(ctx, url); err != nil {
			return err
		}
	}
	return store.Remove(ctx, name)
}

// statEntry describes what has the name itself, which may be a link.
func statEntry(ctx context.Context, store block.Store, name string) (block.Entry, error) {
	if links, ok := store.(block.LinkTeller); ok {
		return links.Lstat(ctx, name)
	}
	return store.Stat(ctx, name)
}

// notALink refuses a symbolic link. Who names one may mean it, or the image that
// others use by another name: neither is guessed.
func notALink(url string) error {
	to := "another place"
	if path, ok := image.LocalPath(url); ok {
		if target, err := os.Readlink(path); err == nil {
			to = target
		}
	}
	return block.Errorf(block.Invalid, "remove", location.Redact(url), -1,
		"is a symbolic link to %s, not an image; name the image itself, or remove the link with rm", to)
}

// unused fails when another program has the image open, and when that cannot be
// told. Where there are no image locks, nobody can have one.
func unused(ctx context.Context, url string) error {
	const force = "use --force to remove it all the same"
	held, err := backends.InUse(ctx, url)
	switch {
	case block.KindOf(err) == block.Unsupported:
		return nil
	case err != nil:
		err = block.Errorf(block.KindOf(err), "remove", location.Redact(url), -1, "it cannot be told whether it is in use: %w", err)
		return advise(err, block.KindOf(err), force)
	case held:
		err = block.Errorf(block.Busy, "remove", location.Redact(url), -1, "in use by another process")
		return advise(err, block.Busy, "end the program that uses it, or "+force)
	}
	return nil
}
