package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// figure is one row of the table.
type figure struct {
	name, benchmark, unit string
	// most and least are the bounds in the shown unit. Without a bound, the table shows the figure
	// for information.
	most, least *float64
	// shown is the unit in the table if it differs from unit. factor converts to it.
	shown  string
	factor float64
}

const (
	decisions   = "Decide"
	thousand    = "ThousandRepositories"
	tenThousand = "TenThousandRepositories"
	pods        = "Compliance10000Pods"
	knownTags   = "KnownTags"
)

// figures returns all rows of the table, in its order.
func figures() []figure {
	all := []figure{
		{
			name: "decision, 10 policies and repositories", benchmark: decisions + "/size=10", unit: "ns/op",
			most: new(10.0), shown: "µs", factor: 1e-3,
		},
		{
			name: "decision, 1,000 policies and repositories", benchmark: decisions + "/size=1000", unit: "ns/op",
			most: new(10.0), shown: "µs", factor: 1e-3,
		},
		{name: "  allocations of it", benchmark: decisions + "/size=1000", unit: "allocs/op", shown: "allocations"},
		{name: "  the same decision, 1,000 against 10", benchmark: "DecideGrowth", unit: "x/growth", most: new(1.2)},
		{
			name: "  on another repository each time", benchmark: "DecideGrowth", unit: "ns/scattered-decision",
			most: new(10.0), shown: "µs", factor: 1e-3,
		},
	}
	all = append(all, handlers()...)
	all = append(all, fetches()...)
	all = append(all, registries()...)
	all = append(all, formats()...)
	all = append(all, thousandRepositories()...)
	return append(all, estates()...)
}

// handlers returns the figures of the webhook over HTTPS: of each handler, protocol and number of
// clients.
func handlers() []figure {
	var all []figure
	for _, handler := range []string{"pinning", "gate"} {
		for _, protocol := range []struct{ part, name string }{{"HTTP2", "HTTP/2"}, {"HTTP1", "HTTP/1.1"}} {
			for _, clients := range []string{"1", "8", "32", "64"} {
				benchmark := "Handler/" + handler + "/" + protocol.part + "/clients=" + clients
				name := handler + ", " + clients + " clients, " + protocol.name + ": requests"
				all = append(all,
					figure{name: name, benchmark: benchmark, unit: "requests/s"},
					figure{
						name: "  of a handler that decodes and patches", benchmark: benchmark, unit: "%/rate",
						least: new(90.0), shown: "%",
					},
					figure{
						name: "  processor time against it", benchmark: benchmark, unit: "x/cpu",
						most: new(1.15), shown: "x",
					},
					figure{
						name: "  of a handler that only reads", benchmark: benchmark, unit: "%/rate-of-reader",
						least: new(75.0), shown: "%",
					},
				)
			}
		}
	}
	return all
}

// fetches returns the figures of single repositories and of publications.
func fetches() []figure {
	return []figure{
		{
			name: "a publication with 10 repositories in the store", benchmark: "Publication/size=10", unit: "ns/op",
			shown: "µs", factor: 1e-3,
		},
		{
			name: "  with 10,000 repositories in the store", benchmark: "Publication/size=10000", unit: "ns/op",
			most: new(20.0), shown: "µs", factor: 1e-3,
		},
		{name: "  10,000 against 10", benchmark: "PublicationGrowth", unit: "x/growth", most: new(1.2)},
		{name: "first fetch, 3 delegations: round trips", benchmark: "FirstSight", unit: "round-trips", most: new(3.0)},
		{name: "  requests", benchmark: "FirstSight", unit: "requests", most: new(7.0)},
		{name: "  at no added latency", benchmark: "FirstSight", unit: "ms/0ms-away", shown: "ms"},
		{name: "  at 100 ms of added latency", benchmark: "FirstSight", unit: "ms/100ms-away", shown: "ms"},
		{name: "500 Pods of one new repository: fetches", benchmark: "Herd", unit: "fetches", most: new(1.0)},
		{name: "  requests", benchmark: "Herd", unit: "requests", most: new(7.0)},
		{name: "  all admitted, 100 ms away, after", benchmark: "Herd", unit: "ms/herd", shown: "ms"},
		{
			name: "a signed repository beside 1,280 made-up ones, no latency: after", benchmark: "Flood",
			unit: "ms/0ms-away", shown: "ms",
		},
		{
			name: "  fetches of made-up ones before it", benchmark: "Flood", unit: "fetches-before/0ms-away",
			shown: "fetches",
		},
		{name: "  100 ms away: after", benchmark: "Flood", unit: "ms/100ms-away", shown: "ms"},
		{
			name: "  fetches of made-up ones before it", benchmark: "Flood", unit: "fetches-before/100ms-away",
			shown: "fetches",
		},
		{
			name: "1,000 repositories, a key of all revoked: no longer counts after", benchmark: "Revocation",
			unit: "ms/revoked", most: new(1000.0), shown: "ms",
		},
		{name: "  all verified again after", benchmark: "Revocation", unit: "s/verified-again", shown: "s"},
	}
}

// registries returns the figures of image registries, which formats that sign digests read.
func registries() []figure {
	all := []figure{
		{name: "resolve of a tag: at no added latency", benchmark: "Resolve", unit: "ms/0ms-away", shown: "ms"},
		{name: "  at 100 ms of added latency", benchmark: "Resolve", unit: "ms/100ms-away", shown: "ms"},
	}
	for _, kind := range []struct{ part, name string }{
		{"referrers-API", "referrers API"}, {"tag-schema", "referrers under a tag"},
	} {
		benchmark := "TagFirstSight/" + kind.part
		all = append(all,
			figure{
				name: "first sight by tag, 2 signatures, " + kind.name + ": round trips", benchmark: benchmark,
				unit: "round-trips", most: new(3.0),
			},
			figure{name: "  requests", benchmark: benchmark, unit: "requests"},
			figure{name: "  at no added latency", benchmark: benchmark, unit: "ms/0ms-away", shown: "ms"},
			figure{name: "  at 100 ms of added latency", benchmark: benchmark, unit: "ms/100ms-away", shown: "ms"},
		)
	}
	return append(all,
		figure{
			name: "500 Pods of one new tag: requests, against those of one Pod", benchmark: "TagHerd",
			unit: "x/first-sight", most: new(1.0),
		},
		figure{name: "  requests", benchmark: "TagHerd", unit: "requests"},
		figure{name: "  all admitted, 100 ms away, after", benchmark: "TagHerd", unit: "ms/herd", shown: "ms"},
		figure{
			name: "1,000 known tags, each again after its 10 s: requests to the registry", benchmark: knownTags,
			unit: "requests/s",
		},
		figure{name: "  processor time, of one processor", benchmark: knownTags, unit: "%/cpu", shown: "%"},
		figure{
			name: "  answers that are renewed, at no added latency", benchmark: knownTags, unit: "%/0ms-away-renewed",
			least: new(100.0), shown: "%",
		},
		figure{name: "  a request waits", benchmark: knownTags, unit: "ms/0ms-away", shown: "ms"},
		figure{name: "  the slowest hundredth", benchmark: knownTags, unit: "ms/0ms-away-p99", shown: "ms"},
		figure{
			name: "  answers that are renewed, at 100 ms", benchmark: knownTags, unit: "%/100ms-away-renewed",
			least: new(100.0), shown: "%",
		},
		figure{name: "  a request waits", benchmark: knownTags, unit: "ms/100ms-away", shown: "ms"},
		figure{name: "  the slowest hundredth", benchmark: knownTags, unit: "ms/100ms-away-p99", shown: "ms"},
	)
}

// formats returns the figures of each signature format.
func formats() []figure {
	var all []figure
	for _, format := range []string{"notary", "sigstore", "notation", "simpleSigning", "tuf"} {
		benchmark := "Format/" + format
		all = append(all,
			figure{
				name: format + ", first sight of a tag with 2 signatures: round trips", benchmark: benchmark,
				unit: "round-trips", most: new(3.0),
			},
			figure{name: "  requests", benchmark: benchmark, unit: "requests"},
			figure{name: "  at no added latency", benchmark: benchmark, unit: "ms/0ms-away", shown: "ms"},
			figure{name: "  at 100 ms of added latency", benchmark: benchmark, unit: "ms/100ms-away", shown: "ms"},
			figure{name: "  500 Pods of it at once: requests", benchmark: benchmark, unit: "requests/herd"},
			figure{
				name: "  a decision once it is known", benchmark: benchmark, unit: "µs/decision", most: new(10.0),
				shown: "µs",
			},
			figure{name: "  verification, for each signature", benchmark: benchmark, unit: "µs/signature", shown: "µs"},
		)
	}
	for _, format := range []string{"sigstore", "notation", "simpleSigning", "tuf"} {
		all = append(all, figure{
			name:      "10,000 digests with 2 signatures each, " + format + ": memory",
			benchmark: "TenThousandDigests/" + format, unit: "MiB", most: new(200.0), shown: "MiB",
		})
	}
	return all
}

// thousandRepositories returns the figures of the manager with 1,000 repositories.
func thousandRepositories() []figure {
	return []figure{
		{name: "1,000 repositories: loaded after", benchmark: thousand, unit: "s/load", shown: "s"},
		{name: "  requests for each", benchmark: thousand, unit: "requests/repository", shown: "requests"},
		{name: "  resident memory", benchmark: thousand, unit: "MiB-resident", most: new(100.0), shown: "MiB"},
		{name: "  at its peak", benchmark: thousand, unit: "MiB-peak", shown: "MiB"},
		{
			name: "  a round of refreshes: requests", benchmark: thousand, unit: "requests/refresh-round",
			shown: "requests",
		},
		{name: "  processor time of it", benchmark: thousand, unit: "cpu-s/refresh-round", shown: "s"},
		{
			name: "  an interval by the change feed: requests", benchmark: thousand, unit: "requests/feed-interval",
			shown: "requests",
		},
		{name: "  processor time of it", benchmark: thousand, unit: "cpu-s/feed-interval", shown: "s"},
		{
			name: "  on average, with the rare polls of each", benchmark: "RefreshOf1000/feed", unit: "requests/op",
			most: new(125.0), shown: "requests",
		},
		{name: "  ready from nothing, server up", benchmark: thousand, unit: "s/cold-start", shown: "s"},
		{
			name: "  ready from records, server down", benchmark: thousand, unit: "s/start-from-records",
			most: new(2.0), shown: "s",
		},
		{
			name: "  resident memory then", benchmark: thousand, unit: "MiB-resident-from-records", most: new(100.0),
			shown: "MiB",
		},
		{name: "  at its peak", benchmark: thousand, unit: "MiB-peak-from-records", shown: "MiB"},
	}
}

// estates returns the figures of the manager with 10,000 repositories, and with 10,000 Pods.
func estates() []figure {
	return []figure{
		{name: "10,000 repositories: loaded after", benchmark: tenThousand, unit: "s/load", shown: "s"},
		{name: "  resident memory", benchmark: tenThousand, unit: "MiB-resident", most: new(700.0), shown: "MiB"},
		{name: "  at its peak", benchmark: tenThousand, unit: "MiB-peak", shown: "MiB"},
		{name: "10,000 Pods: counted after a start", benchmark: pods, unit: "s/start", shown: "s"},
		{name: "  after an edit of the policy", benchmark: pods, unit: "s/policy-edit", shown: "s"},
		{
			name: "  their memory, at its peak", benchmark: pods, unit: "MiB-more-at-peak", most: new(40.0),
			shown: "MiB",
		},
		{name: "idle, without Pods: resident memory", benchmark: pods, unit: "MiB-idle", most: new(80.0), shown: "MiB"},
	}
}

func (f figure) scale() float64 {
	if f.factor == 0 {
		return 1
	}
	return f.factor
}

func (f figure) text(value float64) string {
	unit := f.shown
	if unit == "" {
		unit, _, _ = strings.Cut(f.unit, "-")
		if unit == "x/growth" {
			unit = "x"
		}
	}
	return strconv.FormatFloat(value, 'g', 4, 64) + " " + unit
}

func (f figure) bound() string {
	switch {
	case f.most != nil:
		return fmt.Sprintf("≤ %g", *f.most)
	case f.least != nil:
		return fmt.Sprintf("≥ %g", *f.least)
	}
	return "-"
}

func (f figure) verdict(value float64) string {
	switch {
	case f.most == nil && f.least == nil:
		return ""
	case f.most != nil && value > *f.most, f.least != nil && value < *f.least:
		return "MISSED"
	}
	return "met"
}

// command returns the command that measures only this figure.
func (f figure) command() string {
	parts := strings.Split("Benchmark"+f.benchmark, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	folder, times := "./test/bench", ""
	switch parts[0] {
	case "^BenchmarkCompliance10000Pods$":
		folder, times = "./test/e2e", " -benchtime 1x -timeout 20m"
	case "^BenchmarkKnownTags$", "^BenchmarkFormat$", "^BenchmarkTenThousandDigests$":
		times = " -benchtime 1x"
	case "^BenchmarkThousandRepositories$", "^BenchmarkTenThousandRepositories$":
		times = " -benchtime 1x -timeout 20m"
	case "^BenchmarkRefreshOf1000$", "^BenchmarkPublication$", "^BenchmarkPublicationGrowth$":
		folder = "./internal/store"
	}
	return fmt.Sprintf("go test -run '^$' -bench '%s'%s %s", strings.Join(parts, "/"), times, folder)
}
