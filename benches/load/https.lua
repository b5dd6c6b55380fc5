-- What wrk says at its end, as one JSON line. Its times are microseconds.
done = function(summary, latency)
    local e = summary.errors
    print(string.format('{"requests": %d, "failed": %d, "bytes": %.0f, "per_second": %.1f, "p50_ns": %.0f, "p99_ns": %.0f}',
        summary.requests, e.connect + e.read + e.write + e.status + e.timeout, summary.bytes,
        summary.requests / summary.duration * 1e6, latency:percentile(50) * 1e3, latency:percentile(99) * 1e3))
end
