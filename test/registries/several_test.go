package registries

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/test/digests"
)

// TestOneRegistryOfSeveralDown has one trust root read three registries, of which two fail in
// different ways. The status names these two, and images of the third are decided as ever.
func TestOneRegistryOfSeveralDown(t *testing.T) {
	t.Parallel()
	g := newGate(t, start, "registries")
	behind := newReferrersAPI(t)
	sites, settings := make([]*site, 3), map[string]registry.Config{}
	for i := range sites {
		sites[i] = &site{Gate: g, backend: behind, proxy: faultproxy.Run(t, "https://"+behind.host, behind.ca)}
		maps.Copy(settings, behind.settings(sites[i].proxy))
	}
	images, err := registry.NewImages(registry.ImagesConfig{
		Registries: settings, Hosts: registry.NewHosts(g.HostsNow), Timeout: hung,
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Put("registries", digests.NewRoot(images, interval, g.Clock.Now))
	for _, s := range sites {
		s.await(t, "fresh", admitted, nextTry)
	}
	sites[0].proxy.Disconnect()
	sites[1].proxy.Set(faultproxy.Fault{Hang: true})
	want := []string{host(sites[0].proxy) + " Unreachable", host(sites[1].proxy) + " Timeout"}
	slices.Sort(want)
	poll.Await(t, "the status", func() error {
		status := g.Tracker.Status("registries")
		var got []string
		for _, f := range status.HostFaults {
			got = append(got, f.Host+" "+f.Fault.Reason)
			if !strings.Contains(f.Fault.Error(), f.Host) {
				return fmt.Errorf("got %w of %s, want its name in it", f.Fault, f.Host)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || status.Hosts != 3 {
			g.Clock.Step(refresh)
			return fmt.Errorf("hosts that fail, of %d (-want +got):\n%s", status.Hosts, diff)
		}
		return nil
	})
	sites[0].want(t, "new", couldNotCheck, "the connection was refused")
	sites[2].await(t, "new", admitted, nextTry)
	sites[2].await(t, "half", denied, nextTry)

	if err := sites[0].proxy.Reconnect(); err != nil {
		t.Fatal(err)
	}
	sites[1].proxy.Set()
	for _, s := range sites {
		s.await(t, "new", admitted, nextTry)
	}
	sites[0].awaitStatus(t, "")
}
