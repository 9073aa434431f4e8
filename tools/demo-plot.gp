# Draws DIRECTORY/latency.png from what tools/demo-inside wrote there: each request's latency over time,
# of every server that was measured, with the save marked. Time 0 is BGSAVE.
#   gnuplot -e "directory = 'DIRECTORY'" demo-plot.gp

set terminal png size 1400, 800
set output directory . '/latency.png'
set datafile separator ','
set title 'Redis, 10 clients SET of 1 kB: latency of each request; BGSAVE at 0'
set xlabel 'seconds from BGSAVE'
set ylabel 'latency in ms'
set logscale y
set grid
set key outside top

saved = directory . '/saved.csv'
kinds = system(sprintf("cut -d, -f1 '%s'", saved))
ends = system(sprintf("cut -d, -f2 '%s'", saved))
colour(kind) = kind eq 'plain' ? 0xd95f02 : 0x1b5e9e
name(kind) = kind eq 'plain' ? 'plain redis-server' : 'under dbos-run'

set arrow from first 0, graph 0 to first 0, graph 1 nohead lw 2 dashtype 2 lc rgb 'black'
do for [i = 1:words(kinds)] {
    set arrow from first real(word(ends, i)), graph 0 to first real(word(ends, i)), graph 1 \
        nohead lw 2 dashtype 2 lc rgb colour(word(kinds, i))
    set label sprintf('dump there (%s)', word(kinds, i)) at first real(word(ends, i)), graph 0.97 - 0.03 * i \
        offset 0.5, 0 tc rgb colour(word(kinds, i))
}
plot for [kind in kinds] sprintf('%s/%s.csv', directory, kind) skip 1 using 1:2 with points \
    pt 7 ps 0.3 lc rgb colour(kind) title name(kind)
