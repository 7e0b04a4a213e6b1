package nbd

import (
	"strings"
	"testing"

	"sluice/block"
)

// TestListBounded: a server cannot make a List keep more than its share.
func TestListBounded(t *testing.T) {
	long := strings.Repeat("x", maxString-8)
	item := func(name, description string) []byte {
		return append(append(be.AppendUint32(nil, uint32(len(name))), name...), description...)
	}
	for name, x := range map[string]struct {
		exports, contexts int
		name, description string
		text              string
	}{
		"contexts of one": {1, clientListContexts + 1, "a", "", "more than 256 metadata contexts"},
		"contexts of all": {40, clientListContexts, "a", "", "more than 16 MiB"},
		"names":           {5000, 0, long, "", "more than 16 MiB"},
		"descriptions":    {5000, 0, "a", long, "more than 16 MiB"},
		"exports":         {1 << 16, 0, "a", "", "more than 16 MiB"},
		"honest":          {20, 20, "a", "d", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, 1<<20)
			s.option = func(c *fakeConn, opt option, _ []byte) bool {
				switch opt {
				case optList:
					for range x.exports {
						c.reply(opt, repServer, item(x.name, x.description))
					}
				case optListMetaContext:
					for range x.contexts {
						c.reply(opt, repMetaContext, append(make([]byte, 4), long...))
					}
				default:
					return false
				}
				c.reply(opt, repAck, nil)
				return true
			}
			list, err := List(background, s.start().uri(), ClientConfig{})
			if x.text == "" {
				if err != nil || len(list) != x.exports || len(list[0].MetaContexts) != x.contexts {
					t.Fatal(len(list), err)
				}
				return
			}
			wantKind(t, err, block.Unsupported)
			if !strings.Contains(err.Error(), x.text) || list != nil {
				t.Error(len(list), err)
			}
		})
	}
}
