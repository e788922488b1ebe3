package prometheus_test

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// start is the time of the first sample. As in promtool it is the epoch, so that a time in a test
// equals the value of time().
var start = time.Unix(0, 0).UTC()

// storageOf is a storage of series in memory.
type storageOf []storage.Series

// load parses the series of a test.
func load(t *testing.T, all []series, interval time.Duration) storageOf {
	t.Helper()
	var stored storageOf
	for _, s := range all {
		names, values, err := parser.NewParser(parser.Options{}).ParseSeriesDesc(s.Series + " " + s.Values)
		if err != nil {
			t.Fatalf("%s: %v", s.Series, err)
		}
		var points []chunks.Sample
		for i, v := range values {
			if !v.Omitted {
				points = append(points, point{at: start.Add(time.Duration(i) * interval), value: v.Value})
			}
		}
		stored = append(stored, storage.NewListSeries(names, points))
	}
	return stored
}

// Querier implements storage.Queryable. It ignores the time range, because the engine drops samples
// outside the range that it queried.
func (s storageOf) Querier(int64, int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints,
		matchers ...*labels.Matcher) storage.SeriesSet {
		found := set{at: -1}
		for _, one := range s {
			if matches(one.Labels(), matchers) {
				found.series = append(found.series, one)
			}
		}
		return &found
	}}, nil
}

func matches(names labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if !m.Matches(names.Get(m.Name)) {
			return false
		}
	}
	return true
}

// set implements storage.SeriesSet.
type set struct {
	series []storage.Series
	at     int
}

func (s *set) Next() bool         { s.at++; return s.at < len(s.series) }
func (s *set) At() storage.Series { return s.series[s.at] }
func (*set) Err() error           { return nil }

func (*set) Warnings() annotations.Annotations { return nil }

// point implements chunks.Sample.
type point struct {
	at    time.Time
	value float64
}

func (p point) T() int64                    { return p.at.UnixMilli() }
func (point) ST() int64                     { return 0 }
func (p point) F() float64                  { return p.value }
func (point) H() *histogram.Histogram       { return nil }
func (point) FH() *histogram.FloatHistogram { return nil }
func (point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample         { return p }
