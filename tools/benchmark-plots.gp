# Draws DIRECTORY/PLOTTED.svg from the CSV files that tools/benchmark wrote there.
#   gnuplot -e "directory = 'DIRECTORY'; plotted = 'native'" benchmark-plots.gp

set terminal svg size 960, 540 background 'white' font 'sans,14'
set output directory . '/' . plotted . '.svg'
set datafile separator ','
set grid
set key outside right
linux = 0xd95f02
dbos = 0x1b5e9e
file(name) = directory . '/' . name . '.csv'

if (plotted eq 'native') {
    set title 'Snapshots, natively: the engine alone (medians)'
    set xlabel 'memory in 4 KiB pages, GiB'
    set ylabel 'us'
    set logscale x 2
    set logscale y
    plot file('native') skip 1 using 1:2 with linespoints pt 7 lc rgb dbos title 'snapshot, shared', \
        '' skip 1 using 1:3 with linespoints pt 5 lc rgb 0x4a90d9 title 'ready, in step', \
        '' skip 1 using 1:4 with linespoints pt 9 lc rgb 0x7fb3e6 title 'ready, changed', \
        '' skip 1 using 1:5 with linespoints pt 4 lc rgb 0x666666 title 'ready copy made', \
        '' skip 1 using 1:6 with linespoints pt 6 lc rgb 0xaaaaaa title 'memcpy of as much', \
        file('native-fork') skip 1 using 1:2 with points pt 13 ps 2 lc rgb linux title "Linux's fork"
}
if (plotted eq 'fork-stall') {
    set title 'How long fork() keeps its caller, in the machine (line: median, point: minimum)'
    set xlabel 'memory touched in 4 KiB pages, MiB'
    set ylabel 'us'
    set logscale x 2
    set logscale y
    plot file('fork-stall') skip 1 using 1:2 with lines lw 2 lc rgb linux title 'Linux', \
        '' skip 1 using 1:3 with points pt 7 lc rgb linux title 'minimum', \
        '' skip 1 using 1:4 with lines lw 2 lc rgb dbos title 'dbos', \
        '' skip 1 using 1:5 with points pt 7 lc rgb dbos title 'minimum'
}
if (plotted eq 'htap') {
    set title 'Longest transaction while an analytics thread scans, by table, writers and what it scans'
    set ylabel 'ms'
    set logscale y
    set style data histograms
    set style fill solid
    set xtics rotate by -35 noenhanced
    set grid noxtics
    plot file('htap-longest') skip 1 using 2:xtic(1) lc rgb linux title 'Linux', \
        '' skip 1 using 3 lc rgb dbos title 'dbos'
}
if (plotted eq 'redis-latency') {
    set title 'Redis, 10 clients SET of 1 kB, BGSAVE at 0: latency in each 0.1 s'
    set xlabel 'seconds from BGSAVE'
    set ylabel 'ms'
    set logscale y
    saved(kind) = real(system(sprintf("awk -F, '$1 == \"%s\" {print $2}' '%s'", kind, file('redis-saved'))))
    set arrow from first 0, graph 0 to first 0, graph 1 nohead lw 2 dashtype 2 lc rgb 'black'
    set arrow from first saved('plain'), graph 0 to first saved('plain'), graph 1 nohead lw 2 dashtype 2 lc rgb linux
    set arrow from first saved('dbos-run'), graph 0 to first saved('dbos-run'), graph 1 nohead lw 2 dashtype 2 lc rgb dbos
    plot file('redis-latency-plain') skip 1 using 1:4 with points pt 7 ps 0.5 lc rgb linux title 'plain, longest', \
        '' skip 1 using 1:3 with lines lc rgb linux title 'plain, median', \
        file('redis-latency-dbos-run') skip 1 using 1:4 with points pt 7 ps 0.5 lc rgb dbos title 'dbos, longest', \
        '' skip 1 using 1:3 with lines lc rgb dbos title 'dbos, median'
}
