#!/bin/sh
# Draws candle.mp4 from nothing but expressions: 2.5 s that loop without a seam. Kept so that it can be made again.
set -eu
f="st(0,(Y-44)/42);st(1,1-0.13*sin(20.106*T)-0.07*sin(47.752*T));st(2,(1-ld(0))*5*sin(10.053*T+Y/11));st(3,1+6.5*sin(3.1416*pow(clip(ld(0),0,1),1.6)));st(4,between(ld(0),0,1)*exp(-pow((X-142-ld(2))/ld(3),2))*min(1,ld(0)*6));st(5,ld(1)*exp(-(pow(X-142,2)+pow(Y-70,2))/6500));st(6,between(X,130,154)*between(Y,91,136));st(7,gte(Y,126)*(1-ld(6)));st(8,(0.35+0.65*exp(-(Y-91)/26))*(1-0.45*pow((X-142)/12,2))*ld(1));"
ffmpeg -y -hide_banner -loglevel error -f lavfi -i "nullsrc=size=284x160:rate=24:duration=2.5,format=gbrp,geq=\
r='${f}clip((1-ld(6))*(14+120*ld(5)+ld(7)*(20+60*ld(5)+9*sin(Y*2+3*sin(X/37))))+ld(6)*250*ld(8)+255*ld(4)-90*between(X,141,142)*between(Y,83,90),0,255)':\
g='${f}clip((1-ld(6))*(10+62*ld(5)+ld(7)*(8+30*ld(5)+5*sin(Y*2+3*sin(X/37))))+ld(6)*205*ld(8)+215*ld(4)-90*between(X,141,142)*between(Y,83,90),0,255)':\
b='${f}clip((1-ld(6))*(12+24*ld(5)+ld(7)*(2+10*ld(5)))+ld(6)*140*ld(8)+110*pow(ld(4),2)-60*between(X,141,142)*between(Y,83,90),0,255)',\
scale=854:480:flags=bicubic,setsar=1,format=yuv420p" -c:v libx264 -profile:v baseline -preset veryslow -crf 29 -movflags +faststart -map_metadata -1 -fflags +bitexact -flags:v +bitexact "$(dirname "$0")/candle.mp4"
